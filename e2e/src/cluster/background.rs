//! The one thread that outlives every test.
//!
//! A child's parent-death signal is tied to the *thread* that spawned it, and a test's runtime ends with the test,
//! while a cluster is shared by all tests of a binary. So whatever must last (child processes, the node agent) lives
//! on this thread, which ends with the process and not before.

use std::future::Future;
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, anyhow};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

static THREAD: OnceLock<Result<Handle, String>> = OnceLock::new();

/// Runs `task` on the lasting thread, whatever runtime (or none) the caller is on.
///
/// # Errors
/// Only when the thread could not be started at all.
pub fn spawn<F>(task: F) -> anyhow::Result<JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match THREAD.get_or_init(start) {
        Ok(handle) => Ok(handle.spawn(task)),
        Err(why) => Err(anyhow!("the background thread did not start: {why}")),
    }
}

/// Runs `task` on the lasting thread and waits for what it gives. A caller who goes away takes the task along.
///
/// # Errors
/// What the task fails with, or that it ended without an answer.
pub async fn run<F, T>(task: F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut task = AbortOnDrop(spawn(task)?);
    (&mut task.0).await.context("a background task ended early")?
}

/// A task that ends when its owner does.
#[derive(Debug)]
pub struct AbortOnDrop<T>(pub JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start() -> Result<Handle, String> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    thread::Builder::new()
        .name("e2e-background".to_owned())
        .spawn(move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = tell.send(Ok(runtime.handle().clone()));
                runtime.block_on(std::future::pending::<()>());
            }
            Err(error) => {
                let _ = tell.send(Err(error.to_string()));
            }
        })
        .map_err(|error| error.to_string())?;
    told.recv().map_err(|error| error.to_string())?
}
