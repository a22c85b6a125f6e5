//! A pod's emptyDirs: folders that its containers share. Nothing is mounted, so where a command or a variable names the path of
//! a mount, the folder's own path stands instead.

use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, Pod};

/// What the container mounts: the path that it names, and the folder that is meant.
#[derive(Debug)]
pub(super) struct Folders(Vec<(String, String)>);

impl Folders {
    /// Makes those that are not there yet. `dir` is the pod's own folder.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub(super) fn of(pod: &Pod, container: &Container, dir: &Path) -> anyhow::Result<Self> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let empty: Vec<&str> =
            volumes.filter(|volume| volume.empty_dir.is_some()).map(|volume| volume.name.as_str()).collect();
        let mounts = container.volume_mounts.iter().flatten().filter(|mount| empty.contains(&mount.name.as_str()));
        let made = mounts.map(|mount| {
            let folder = dir.join("volumes").join(&mount.name);
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            Ok((mount.mount_path.clone(), folder.to_string_lossy().into_owned()))
        });
        Ok(Self(made.collect::<anyhow::Result<_>>()?))
    }

    /// The text with the folders' own paths.
    pub(super) fn resolve(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (mount, folder)| text.replace(mount, folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_mounts_are_resolved_and_the_folder_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut pod = Pod::default();
        let spec = r#"{containers: [{name: a, volumeMounts: [{name: run, mountPath: /run/a}, {name: token, mountPath: /run/b}]}],
            volumes: [{name: run, emptyDir: {}}, {name: token, secret: {}}]}"#;
        pod.spec = Some(serde_yaml::from_str(spec).unwrap());
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let folders = Folders::of(&pod, &container, dir.path()).unwrap();
        let folder = dir.path().join("volumes/run");
        assert_eq!(folders.resolve("cat /run/a/x /run/b/y"), format!("cat {}/x /run/b/y", folder.display()));
        assert!(folder.is_dir());
    }
}
