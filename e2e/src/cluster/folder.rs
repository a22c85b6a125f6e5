//! The one temporary folder of a cluster, which goes away however this process ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// Reads until we are gone (the pipe closes, even after SIGKILL), then clears up. Children that are just being killed
/// may still write for a moment, hence the second try.
const GUARDIAN: &str = r#"cat >/dev/null; rm -rf "$0" 2>/dev/null || { sleep 1; rm -rf "$0"; }"#;

/// A folder that is removed when this is dropped, and also when the process is killed.
///
/// With `E2E_KEEP` set it is left behind, with all logs in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    guardian: Option<Child>,
}

impl Folder {
    /// Makes the folder and its guardian.
    ///
    /// # Errors
    /// When the folder or the guardian cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("ip-address-controller-")
            .tempdir()
            .context("making a temporary folder")?
            .keep();
        let guardian = if std::env::var_os("E2E_KEEP").is_some() {
            None
        } else {
            Some(
                Command::new("sh")
                    .args(["-c", GUARDIAN])
                    .arg(&path)
                    .current_dir("/")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    // Who kills our whole group (a Ctrl-C, `timeout`) must not kill the one who clears up.
                    .process_group(0)
                    .spawn()
                    .context("starting the folder's guardian")?,
            )
        };
        Ok(Self { path, guardian })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            drop(guardian.stdin.take());
            let _ = guardian.wait();
        }
    }
}
