//! What this process has changed and the cloud may not show yet. Pure: the time is handed in.
//!
//! EC2's reads lag behind its changes, so for the time of [`Provider::read_lag`] an association that we ended counts as
//! gone, and one that we made as there, whatever is shown. An association that is neither is taken as shown: somebody else
//! made it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::translate::Association;
use crate::cloud::{Interface, Provider};

/// An instance that was asked to take an address of its own is not asked again for so long: AWS speaks of minutes.
const ASKED_FOR: Duration = Duration::from_secs(300);

/// An association that we made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    ip: IpAddr,
    association: Association,
    at: Instant,
    /// Its end was asked for, and it is not known whether that took effect.
    doubtful: bool,
    /// What AWS had lent the interface before.
    displaced: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    ip: IpAddr,
    interface: String,
    at: Instant,
    /// What AWS had lent the interface before it, if we had made it a moment ago.
    displaced: Option<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By allocation id.
    made: BTreeMap<String, Made>,
    /// By association id.
    ended: BTreeMap<String, Ended>,
    /// By instance id.
    asked: BTreeMap<String, Instant>,
}

impl Recent {
    /// The cloud has answered that the address is there. `displaced`: what AWS had lent the interface before.
    pub fn made(
        &mut self,
        allocation: &str,
        ip: IpAddr,
        association: Association,
        displaced: Option<IpAddr>,
        now: Instant,
    ) {
        self.forget(now);
        self.made.insert(allocation.to_owned(), Made { ip, association, at: now, doubtful: false, displaced });
    }

    /// The cloud has answered that the association is gone.
    pub fn ended(&mut self, ip: IpAddr, association: &Association, now: Instant) {
        self.forget(now);
        let mut gone = self.made.extract_if(.., |_, made| made.association.id == association.id);
        let displaced = gone.next().and_then(|(_, made)| made.displaced);
        drop(gone);
        let ended = Ended { ip, interface: association.interface.clone(), at: now, displaced };
        self.ended.insert(association.id.clone(), ended);
    }

    /// The end of an association is about to be asked for. Says whether there was none of a doubt before.
    pub fn doubt(&mut self, association: &Association) -> bool {
        let made = self.made.values_mut().find(|made| made.association.id == association.id);
        made.is_some_and(|made| !std::mem::replace(&mut made.doubtful, true))
    }

    /// The end was refused: the association is as sure as it was.
    pub fn trust(&mut self, association: &Association) {
        for made in self.made.values_mut().filter(|made| made.association.id == association.id) {
            made.doubtful = false;
        }
    }

    /// The association of an address that counts, where this one is shown.
    pub fn association(&self, allocation: &str, shown: Option<Association>, now: Instant) -> Option<Association> {
        self.laid_over(allocation, shown, now, |made| !made.doubtful)
    }

    /// The same for somebody who wants to end it: one that is only perhaps there counts too.
    pub fn association_to_end(
        &self,
        allocation: &str,
        shown: Option<Association>,
        now: Instant,
    ) -> Option<Association> {
        self.laid_over(allocation, shown, now, |_| true)
    }

    fn laid_over(
        &self,
        allocation: &str,
        shown: Option<Association>,
        now: Instant,
        counts: impl Fn(&Made) -> bool,
    ) -> Option<Association> {
        let in_force = shown.filter(|shown| !self.ended.get(&shown.id).is_some_and(|ended| young(ended.at, now)));
        in_force.or_else(|| {
            let made = self.made.get(allocation).filter(|made| young(made.at, now) && counts(made))?;
            Some(made.association.clone())
        })
    }

    /// What an interface holds that counts, where this is shown.
    pub fn interface(&self, interface: &str, shown: Interface, now: Instant) -> Interface {
        let ended = |ip: IpAddr| {
            let mut all = self.ended.values();
            all.any(|ended| ended.interface == interface && ended.ip == ip && young(ended.at, now))
        };
        let made = self
            .made
            .values()
            .find(|made| made.association.interface == interface && !made.doubtful && young(made.at, now));
        match (shown, made) {
            // A reserved one that we did not take off: whatever we put there is gone.
            (Interface::Reserved(ip), _) if !ended(ip) => Interface::Reserved(ip),
            (_, Some(made)) => Interface::Reserved(made.ip),
            (Interface::Reserved(_), None) => Interface::Empty,
            (shown, None) => shown,
        }
    }

    /// Whether this address, which AWS lends an interface, is the one that it had before our association: neither that nor its end is
    /// shown yet.
    pub fn is_of_the_past(&self, interface: &str, lent: IpAddr, now: Instant) -> bool {
        let mut ended = self.ended.values().filter(|ended| ended.interface == interface && young(ended.at, now));
        ended.any(|ended| ended.displaced == Some(lent))
    }

    /// An instance has been asked to take an address of its own.
    pub fn asked(&mut self, instance: &str, now: Instant) {
        self.forget(now);
        self.asked.insert(instance.to_owned(), now);
    }

    pub fn was_asked(&self, instance: &str, now: Instant) -> bool {
        self.asked.get(instance).is_some_and(|at| now.duration_since(*at) < ASKED_FOR)
    }

    fn forget(&mut self, now: Instant) {
        self.made.retain(|_, made| young(made.at, now));
        self.ended.retain(|_, ended| young(ended.at, now));
        self.asked.retain(|_, at| now.duration_since(*at) < ASKED_FOR);
    }
}

fn young(at: Instant, now: Instant) -> bool {
    now.duration_since(at) < Provider::Aws.read_lag()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOCATION: &str = "eipalloc-1";

    fn ip() -> IpAddr {
        "203.0.113.7".parse().unwrap()
    }

    fn association(id: &str, interface: &str) -> Association {
        Association {
            id: id.to_owned(),
            interface: interface.to_owned(),
            private_ip: "10.0.0.1".to_owned(),
            instance: "i-1".to_owned(),
        }
    }

    fn later(now: Instant) -> Instant {
        now + Provider::Aws.read_lag()
    }

    #[test]
    fn what_we_made_counts_until_reads_must_show_it() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let made = association("eipassoc-1", "eni-1");
        recent.made(ALLOCATION, ip(), made.clone(), None, now);
        assert_eq!(recent.association(ALLOCATION, None, now), Some(made));
        assert_eq!(recent.interface("eni-1", Interface::Empty, now), Interface::Reserved(ip()));
        assert_eq!(recent.interface("eni-2", Interface::Empty, now), Interface::Empty);
        assert_eq!(recent.association(ALLOCATION, None, later(now)), None);
        assert_eq!(recent.interface("eni-1", Interface::Empty, later(now)), Interface::Empty);
    }

    #[test]
    fn what_we_ended_counts_as_gone_until_reads_must_show_it() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let old = association("eipassoc-1", "eni-1");
        recent.ended(ip(), &old, now);
        assert_eq!(recent.association(ALLOCATION, Some(old.clone()), now), None);
        assert_eq!(recent.interface("eni-1", Interface::Reserved(ip()), now), Interface::Empty);
        assert_eq!(recent.association(ALLOCATION, Some(old.clone()), later(now)), Some(old));
        assert_eq!(recent.interface("eni-1", Interface::Reserved(ip()), later(now)), Interface::Reserved(ip()));
    }

    #[test]
    fn a_move_shows_the_new_place_alone() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let (old, new) = (association("eipassoc-1", "eni-1"), association("eipassoc-2", "eni-2"));
        recent.made(ALLOCATION, ip(), old.clone(), None, now);
        recent.ended(ip(), &old, now);
        recent.made(ALLOCATION, ip(), new.clone(), None, now);
        assert_eq!(recent.association(ALLOCATION, Some(old), now), Some(new));
        assert_eq!(recent.interface("eni-1", Interface::Reserved(ip()), now), Interface::Empty);
        assert_eq!(recent.interface("eni-2", Interface::Empty, now), Interface::Reserved(ip()));
    }

    #[test]
    fn p10_what_an_interface_was_lent_before_an_association_that_came_and_went_is_of_the_past() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let [before, after] = ["198.51.100.4", "198.51.100.5"].map(|ip| ip.parse().unwrap());
        let made = association("eipassoc-1", "eni-1");
        recent.made(ALLOCATION, ip(), made.clone(), Some(before), now);
        recent.ended(ip(), &made, now);
        assert!(recent.is_of_the_past("eni-1", before, now));
        assert!(!recent.is_of_the_past("eni-1", after, now) && !recent.is_of_the_past("eni-2", before, now));
        assert!(!recent.is_of_the_past("eni-1", before, later(now)));
    }

    #[test]
    fn what_somebody_else_made_is_taken_as_shown() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.made(ALLOCATION, ip(), association("eipassoc-1", "eni-1"), None, now);
        let theirs = association("eipassoc-9", "eni-9");
        assert_eq!(recent.association(ALLOCATION, Some(theirs.clone()), now), Some(theirs));
        let other = Interface::Reserved("203.0.113.8".parse().unwrap());
        assert_eq!(recent.interface("eni-1", other.clone(), now), other);
    }

    #[test]
    fn a_doubtful_association_counts_only_for_who_wants_to_end_it() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let made = association("eipassoc-1", "eni-1");
        recent.made(ALLOCATION, ip(), made.clone(), None, now);
        assert!(recent.doubt(&made));
        assert!(!recent.doubt(&made), "it was doubtful before");
        assert_eq!(recent.association(ALLOCATION, None, now), None);
        assert_eq!(recent.interface("eni-1", Interface::Empty, now), Interface::Empty);
        assert_eq!(recent.association_to_end(ALLOCATION, None, now), Some(made.clone()));
        recent.trust(&made);
        assert_eq!(recent.association(ALLOCATION, None, now), Some(made));
    }

    #[test]
    fn nothing_is_kept_for_longer_than_it_counts() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.made(ALLOCATION, ip(), association("eipassoc-1", "eni-1"), None, now);
        recent.ended(ip(), &association("eipassoc-0", "eni-0"), now);
        recent.asked("i-1", now);
        assert!(recent.was_asked("i-1", now) && !recent.was_asked("i-1", now + ASKED_FOR));
        recent.asked("i-2", now + ASKED_FOR);
        assert!(recent.made.is_empty() && recent.ended.is_empty());
        assert_eq!(recent.asked.len(), 1);
    }
}
