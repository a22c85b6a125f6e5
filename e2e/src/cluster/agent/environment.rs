//! A container's environment: plain values, fields of the pod, secrets and config maps.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client, ResourceExt};

/// What fields of a pod are read from: the object, and what the agent alone knows so far.
pub(super) struct Source<'a> {
    pub client: &'a Client,
    pub pod: &'a Pod,
    pub address: &'a str,
}

/// Resolves `envFrom`, then `env`, each later name winning over an earlier one.
///
/// # Errors
/// When something that is referred to, and not optional, is not there: the container must wait.
pub(super) async fn resolve(source: &Source<'_>, container: &Container) -> anyhow::Result<BTreeMap<String, String>> {
    let mut resolved = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut values = BTreeMap::new();
        if let Some(wanted) = &from.config_map_ref {
            values.extend(source.config_map(&wanted.name, wanted.optional).await?);
        }
        if let Some(wanted) = &from.secret_ref {
            values.extend(source.secret(&wanted.name, wanted.optional).await?);
        }
        resolved.extend(values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &resolved)),
            (None, Some(from)) => source.value(from).await.with_context(|| format!("variable {}", variable.name))?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            resolved.insert(variable.name.clone(), value);
        }
    }
    Ok(resolved)
}

/// Replaces `$(NAME)` by the variable's value; `$$(NAME)` stands for itself, and so does a name that is not known.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match named.and_then(|(name, behind)| Some((variables.get(name)?, behind))) {
            Some((value, behind)) => {
                expanded.push_str(value);
                rest = behind;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

impl Source<'_> {
    async fn value(&self, from: &EnvVarSource) -> anyhow::Result<Option<String>> {
        if let Some(field) = &from.field_ref {
            return self.field(&field.field_path).map(Some);
        }
        if let Some(key) = &from.secret_key_ref {
            let mut values = self.secret(&key.name, key.optional).await?;
            return one(values.remove(&key.key), key.optional, "secret", &key.name, &key.key);
        }
        if let Some(key) = &from.config_map_key_ref {
            let mut values = self.config_map(&key.name, key.optional).await?;
            return one(values.remove(&key.key), key.optional, "config map", &key.name, &key.key);
        }
        bail!("this agent knows fieldRef, secretKeyRef and configMapKeyRef only")
    }

    fn field(&self, path: &str) -> anyhow::Result<String> {
        let spec = self.pod.spec.as_ref().context("a pod without a spec")?;
        let keyed = |map: &BTreeMap<String, String>, prefix: &str| {
            let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
            Some(map.get(key).cloned().unwrap_or_default())
        };
        Ok(match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.pod.namespace().unwrap_or_default(),
            "metadata.uid" => self.pod.uid().unwrap_or_default(),
            "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.podIP" | "status.podIPs" => self.address.to_owned(),
            "status.hostIP" | "status.hostIPs" => "127.0.0.1".to_owned(),
            _ => keyed(self.pod.labels(), "metadata.labels")
                .or_else(|| keyed(self.pod.annotations(), "metadata.annotations"))
                .with_context(|| format!("unknown field {path}"))?,
        })
    }

    fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> anyhow::Result<BTreeMap<String, String>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace());
        match secrets.get_opt(name).await? {
            Some(secret) => {
                let data = secret.data.unwrap_or_default().into_iter();
                Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
            }
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("secret {name} not found"),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> anyhow::Result<BTreeMap<String, String>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace());
        match maps.get_opt(name).await? {
            Some(map) => Ok(map.data.unwrap_or_default()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("config map {name} not found"),
        }
    }
}

fn one(
    value: Option<String>,
    optional: Option<bool>,
    kind: &str,
    name: &str,
    key: &str,
) -> anyhow::Result<Option<String>> {
    if value.is_none() && optional != Some(true) {
        bail!("{kind} {name} has no key {key}");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_and_doubled_dollars_do_not() {
        let variables = BTreeMap::from([("NAME".to_owned(), "a".to_owned())]);
        let expanded = |text| expand(text, &variables);
        assert_eq!(expanded("x-$(NAME)-y"), "x-a-y");
        assert_eq!(expanded("$$(NAME)"), "$(NAME)");
        assert_eq!(expanded("$(OTHER) costs 5$"), "$(OTHER) costs 5$");
        assert_eq!(expanded("$(NAME"), "$(NAME");
    }
}
