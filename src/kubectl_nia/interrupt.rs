//! Ctrl-C, once it is listened for. Before, and with every other verb, it ends the program at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::refusal::{Exit, Refusal};

/// See the module.
pub struct Interrupt(Signal);

impl Interrupt {
    /// From now on it ends nothing by itself, and is remembered until somebody asks.
    ///
    /// # Errors
    /// The process cannot receive signals.
    pub fn listen() -> Result<Self, Refusal> {
        let unheard = |error| Refusal::new(Exit::Failed, format!("signals cannot be received: {error}"));
        signal(SignalKind::interrupt()).map(Self).map_err(unheard)
    }

    /// Ends with the next one.
    pub async fn came(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
