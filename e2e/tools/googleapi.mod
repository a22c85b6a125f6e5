// Google's own description of Compute Engine (compute/v1/compute-api.json), which the simulator's tests hold it against.
// No tool is built from this.
module tools/googleapi

go 1.26.0

require google.golang.org/api v0.311.0
