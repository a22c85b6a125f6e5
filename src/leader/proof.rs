//! The proof of leadership (F1): one monotonic instant, shared by all who must ask before they send.
//!
//! Knows no Lease and no server; the [`Term`](super::Term) moves the instant forward, everybody else only reads it.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Shows that this process leads, until an instant that renewals move forward. Cheap to clone; clones agree.
///
/// Once run out or revoked it never holds again: work that was cancelled because of it stays cancelled.
///
/// The instant is the monotonic clock's, which stands still while a machine is suspended. What a pause cannot break is
/// told in design §3.2.
#[derive(Clone, Debug)]
pub struct Proof(watch::Receiver<Instant>);

impl Proof {
    /// A proof that nobody renews, for tests and for callers whose leadership needs no Lease.
    pub fn fixed(until: std::time::Instant) -> Self {
        Self(watch::Sender::new(Instant::from_std(until)).subscribe())
    }

    /// Leadership is proven up to this instant, which may have passed.
    pub fn until(&self) -> std::time::Instant {
        self.0.borrow().into_std()
    }

    /// Whether leadership is proven now and for all of `span` from now. To be asked just before each mutating request,
    /// with that request's own time-out.
    pub fn outlasts(&self, span: Duration) -> bool {
        let now = Instant::now();
        let until = *self.0.borrow();
        now < until && span <= until - now
    }

    /// Returns when the proof has run out or was revoked.
    pub async fn ended(&self) {
        let mut until = self.0.clone();
        loop {
            let end = *until.borrow_and_update();
            if end <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                moved = until.changed() => if moved.is_err() {
                    // No sender is left: nobody can move the end any more.
                    return tokio::time::sleep_until(end).await;
                }
            }
        }
    }
}

/// The writing end of a [`Proof`].
#[derive(Debug)]
pub(super) struct Standing(watch::Sender<Instant>);

impl Standing {
    pub(super) fn new(until: Instant) -> Self {
        Self(watch::Sender::new(until))
    }

    pub(super) fn proof(&self) -> Proof {
        Proof(self.0.subscribe())
    }

    /// Moves the end forward. `false` when the proof had run out before: an answer that comes too late revives nothing,
    /// because everything was told to stop already.
    pub(super) fn extend(&self, until: Instant) -> bool {
        let mut alive = false;
        self.0.send_if_modified(|end| {
            alive = Instant::now() < *end;
            let later = alive && until > *end;
            if later {
                *end = until;
            }
            later
        });
        alive
    }

    /// Ends the proof now. Repeating it is harmless.
    pub(super) fn revoke(&self) {
        self.0.send_if_modified(|end| {
            let now = Instant::now();
            let earlier = now < *end;
            if earlier {
                *end = now;
            }
            earlier
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_proof_outlasts_exactly_what_is_left_of_it() {
        let proof = Standing::new(Instant::now() + 10 * SECOND).proof();
        assert!(proof.outlasts(10 * SECOND));
        assert!(!proof.outlasts(10 * SECOND + Duration::from_nanos(1)));
        advance(10 * SECOND).await;
        assert!(!proof.outlasts(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn clones_follow_an_extension_and_a_revocation() {
        let standing = Standing::new(Instant::now() + SECOND);
        let proof = standing.proof().clone();
        assert!(standing.extend(Instant::now() + 5 * SECOND));
        assert!(proof.outlasts(5 * SECOND));
        standing.revoke();
        assert!(!proof.outlasts(Duration::ZERO));
        assert!(proof.until() <= Instant::now().into_std());
    }

    #[tokio::test(start_paused = true)]
    async fn an_extension_never_shortens() {
        let standing = Standing::new(Instant::now() + 5 * SECOND);
        assert!(standing.extend(Instant::now() + SECOND));
        assert!(standing.proof().outlasts(5 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ran_out_or_was_revoked_is_not_revived() {
        let late = Standing::new(Instant::now() + SECOND);
        advance(SECOND).await;
        assert!(!late.extend(Instant::now() + 9 * SECOND));
        assert!(!late.proof().outlasts(Duration::ZERO));

        let revoked = Standing::new(Instant::now() + SECOND);
        revoked.revoke();
        assert!(!revoked.extend(Instant::now() + 9 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_heard_when_it_comes_and_not_before() {
        let standing = Standing::new(Instant::now() + SECOND);
        let proof = standing.proof();
        let mut ended = pin!(proof.ended());
        assert!(poll!(&mut ended).is_pending());
        standing.extend(Instant::now() + 3 * SECOND);
        advance(2 * SECOND).await;
        assert!(poll!(&mut ended).is_pending());
        let before = Instant::now();
        ended.await;
        assert_eq!(Instant::now() - before, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_is_heard_at_once() {
        let standing = Standing::new(Instant::now() + 60 * SECOND);
        let proof = standing.proof();
        let mut ended = pin!(proof.ended());
        assert!(poll!(&mut ended).is_pending());
        standing.revoke();
        assert!(poll!(&mut ended).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_proof_ends_by_itself() {
        let start = Instant::now();
        let proof = Proof::fixed((start + SECOND).into_std());
        assert!(proof.outlasts(SECOND));
        proof.ended().await;
        assert_eq!(Instant::now() - start, SECOND);
    }
}
