//! Gates for orders: how long may mutations leave?

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ip_address_controller::cloud::{Closed, Gate};

/// Always open.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn open_for(&self, _: Duration) -> Result<(), Closed> {
        Ok(())
    }
}

/// Lets so many requests out, then closes for good.
#[derive(Debug)]
pub struct Closing(AtomicUsize);

impl Closing {
    /// Closed after so many requests.
    pub fn after(requests: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(requests)))
    }
}

impl Gate for Closing {
    fn open_for(&self, _: Duration) -> Result<(), Closed> {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .map(|_| ())
            .map_err(|_| Closed("the test has closed the gate"))
    }
}
