//! The finalizer, set before the first deed and taken off only when letting go is done.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// May the finalizer go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing is held any more.
    Done,
    /// Something still is; look again after `recheck` at the latest.
    NotYet { recheck: Duration },
}

/// Whether the object carries the finalizer.
pub fn is_set<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.as_ref().is_some_and(|all| all.iter().any(|f| f == finalizer))
}

/// Adds the finalizer, if this very version of the object lacks it, and returns the object as then stored.
///
/// A merge patch of the whole list with the resourceVersion: refused with 409 when the object has changed, so nobody
/// else's finalizer is lost. Never `replace` on the main resource: a typed round trip drops fields of a newer version.
///
/// # Errors
/// The API server's; 409 means: read again and decide anew.
pub async fn set<K>(api: &Api<K>, object: &K, finalizer: &str) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if is_set(object, finalizer) {
        return Ok(object.clone());
    }
    let mut all = object.meta().finalizers.clone().unwrap_or_default();
    all.push(finalizer.to_owned());
    write(api, object, all).await
}

/// Takes the finalizer off, if [`Release::Done`]; of the rest nothing is touched. Returns whether it went.
///
/// # Errors
/// The API server's, except 404: an object that is gone needs no letting go.
pub async fn clear<K>(api: &Api<K>, object: &K, finalizer: &str, release: Release) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if release != Release::Done {
        return Ok(false);
    }
    if !is_set(object, finalizer) {
        return Ok(true);
    }
    let mut all = object.meta().finalizers.clone().unwrap_or_default();
    all.retain(|f| f != finalizer);
    match write(api, object, all).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(true),
        Err(error) => Err(error),
    }
}

async fn write<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}
