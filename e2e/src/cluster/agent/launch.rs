//! What to run for a container: the program behind its image, its arguments, its environment, its identity.

use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

use super::environment::{self, Source};
use super::folders::Folders;
use super::names;
use super::{Shared, lock};
use crate::cluster::process::Launch;
use crate::cluster::service_account_token;

/// Where a container would find its token: the API server mounts it there unless the pod or the account says no.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why a container cannot be started now, in the words of a kubelet's status.
#[derive(Debug)]
pub(super) struct Refused {
    pub reason: &'static str,
    pub message: String,
}

/// Everything about one start of a container. `dir` is the pod's own folder, `address` its IP.
///
/// # Errors
/// When the image is not known, or something that the environment refers to is not there (yet).
pub(super) async fn prepare(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    dir: &Path,
    address: &str,
) -> Result<Launch, Refused> {
    let image = container.image.as_deref().unwrap_or_default();
    let Some(program) = shared.images.get(image).or_else(|| shared.images.get(repository(image))) else {
        let message = format!("no local program stands for image {image}");
        return Err(Refused { reason: "ErrImagePull", message });
    };
    let refused =
        |error: anyhow::Error| Refused { reason: "CreateContainerConfigError", message: format!("{error:#}") };

    let source = Source { client: &shared.client, pod, address };
    let mut env = environment::resolve(&source, container).await.map_err(refused)?;
    names::look_up(&shared.client, &mut env).await.map_err(refused)?;
    let mut args = Vec::new();
    if let Some((entrypoint, further)) = container.command.as_deref().and_then(<[String]>::split_first) {
        same_program(entrypoint, program).map_err(refused)?;
        args.extend(further.iter().chain(container.args.iter().flatten()).map(|arg| environment::expand(arg, &env)));
    } else {
        args.extend(container.args.iter().flatten().map(|arg| environment::expand(arg, &env)));
    }

    let folders = Folders::of(pod, container, dir).map_err(refused)?;
    args.iter_mut().chain(env.values_mut()).for_each(|text| *text = folders.resolve(text));

    env.insert("HOME".to_owned(), dir.to_string_lossy().into_owned());
    env.insert("HOSTNAME".to_owned(), pod.name_any());
    env.insert("BIND_ADDRESS".to_owned(), address.to_owned());
    if wants_token(container) {
        let kubeconfig = dir.join(format!("{}.kubeconfig", container.name));
        write_identity(shared, pod, &kubeconfig).await.map_err(refused)?;
        env.insert("KUBECONFIG".to_owned(), kubeconfig.to_string_lossy().into_owned());
    }
    env.extend(lock(&shared.extra_env).clone());
    Ok(Launch { program: program.clone(), args, env, dir: dir.to_owned() })
}

/// The image reference without tag and digest. A colon before a slash belongs to the registry's port.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// A command names a path inside an image that is not there; the one program that we have must be what is meant.
fn same_program(entrypoint: &str, program: &Path) -> anyhow::Result<()> {
    if Path::new(entrypoint).file_name() != program.file_name() {
        bail!("command {entrypoint} is not the program that stands for the image ({})", program.display());
    }
    Ok(())
}

fn wants_token(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == TOKEN_MOUNT)
}

/// The token is bound to the pod, so it is refused once the pod is gone, and the audit log names the pod.
async fn write_identity(shared: &Shared, pod: &Pod, file: &Path) -> anyhow::Result<()> {
    let namespace = pod.namespace().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let bound_to = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let token = service_account_token(shared.client.clone(), &namespace, account, Some(bound_to)).await?;
    shared.endpoint.write_kubeconfig(file, &token, &namespace).context("the pod's kubeconfig")
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn tag_and_digest_are_no_part_of_the_repository() {
        assert_eq!(repository("app"), "app");
        assert_eq!(repository("repo/app:2.0.0"), "repo/app");
        assert_eq!(repository("localhost:5000/app"), "localhost:5000/app");
        assert_eq!(repository("localhost:5000/app:1@sha256:00"), "localhost:5000/app");
    }
}
