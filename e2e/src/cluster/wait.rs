//! Waiting for what should come true, never for time to pass.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout_at};

/// How often a condition is asked. Short beside everything a cluster does, long beside one request.
const PERIOD: Duration = Duration::from_millis(100);

/// What a look at the world has shown.
#[derive(Debug)]
pub enum Seen<T> {
    /// It has come true, with this.
    Yes(T),
    /// Not yet; what was seen instead, in words, for the message when time runs out.
    NotYet(String),
}

impl Seen<()> {
    /// True, or what was seen instead.
    pub fn when(it_is: bool, instead: impl std::fmt::Debug) -> Self {
        if it_is { Self::Yes(()) } else { Self::NotYet(format!("{instead:?}")) }
    }
}

/// Asks `condition` again and again until it is seen, and gives what it saw.
///
/// An error of the condition counts as not yet: a server that is just starting refuses connections.
///
/// # Errors
/// After `patience`, with the description and the last thing seen.
pub async fn wait_for<T, F, L>(description: &str, patience: Duration, mut condition: F) -> anyhow::Result<T>
where
    F: FnMut() -> L,
    L: Future<Output = anyhow::Result<Seen<T>>>,
{
    let end = Instant::now() + patience;
    let mut last = "nothing".to_owned();
    loop {
        match timeout_at(end, condition()).await {
            Ok(Ok(Seen::Yes(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(seen))) => last = seen,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if Instant::now() + PERIOD >= end {
            bail!("waited {} s for: {description}; last seen: {last}", patience.as_secs());
        }
        sleep(PERIOD).await;
    }
}
