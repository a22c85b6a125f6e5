-- Argo CD: resource.customizations.health.netinfra.darkbrains.com_NetIPAllocation
local hs = {status = "Progressing", message = "the operator has not seen it yet"}
local generation = obj.metadata.generation
local said = {}
if obj.status ~= nil and obj.status.observedGeneration == generation then
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.observedGeneration == generation then
      said[condition.type] = condition
    end
  end
end
local ready = said["Ready"]
if ready == nil then
  return hs
end
hs.message = ready.reason .. ": " .. ready.message
if ready.status == "True" then
  hs.status = "Healthy"
elseif ready.reason == "Observing" then
  hs.status = "Suspended"
elseif said["Stalled"] ~= nil then
  hs.status = "Degraded"
elseif ready.status == "False" and said["Reconciling"] == nil then
  hs.status = "Degraded"
end
return hs
