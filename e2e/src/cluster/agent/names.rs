//! Names of Services in a container's environment. Nothing here serves DNS, so `NAME.NAMESPACE.svc` in a variable is looked
//! up once, when the process starts, and replaced by the address of a pod that the Service selects.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client, api::ListParams};

const SUFFIX: &str = ".svc";

/// Replaces every such name.
///
/// # Errors
/// When there is no such Service, or it has no pod with an address yet: the container must wait.
pub(super) async fn look_up(client: &Client, variables: &mut BTreeMap<String, String>) -> Result<()> {
    for (variable, value) in variables {
        while let Some(name) = name_in(value).map(str::to_owned) {
            let address = address_of(client, &name).await.with_context(|| format!("variable {variable}: {name}"))?;
            *value = value.replacen(&name, &address, 1);
        }
    }
    Ok(())
}

/// The first `NAME.NAMESPACE.svc` of a text.
fn name_in(text: &str) -> Option<&str> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let words = text.split(|c| !in_name(c));
    words.into_iter().find(|word| word.strip_suffix(SUFFIX).is_some_and(|name| name.matches('.').count() == 1))
}

async fn address_of(client: &Client, name: &str) -> Result<String> {
    let (service, namespace) = name.strip_suffix(SUFFIX).and_then(|name| name.split_once('.')).context("not a name")?;
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(service).await?;
    let selector = service.spec.and_then(|spec| spec.selector).context("it selects nothing")?;
    let labels = selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default().labels(&labels)).await?;
    let running = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    running.filter_map(|pod| pod.status?.pod_ip).next().context("no pod of it has an address yet")
}

#[cfg(test)]
mod tests {
    use super::name_in;

    #[test]
    fn a_service_is_found_in_a_url_and_alone() {
        assert_eq!(name_in("http://cloud.try-it.svc:8090/v1"), Some("cloud.try-it.svc"));
        assert_eq!(name_in("cloud.try-it.svc:8090"), Some("cloud.try-it.svc"));
        assert_eq!(name_in("svc,127.0.0.1,.svc,.cluster.local"), None);
        assert_eq!(name_in("http://cloud.try-it.svc.cluster.local"), None);
    }
}
