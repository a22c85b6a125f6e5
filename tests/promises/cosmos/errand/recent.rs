//! `src/cloud/aws/recent.rs`: what this process has changed and AWS may not show yet. One per process.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use ip_address_controller::cloud::{Interface, Provider, ProviderId};

use crate::cosmos::cloud::{Mark, Mount};

/// An instance that was asked to take an address of its own is not asked again for so long.
const ASKED_FOR: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
struct Made {
    mount: Mount,
    at: Instant,
    /// Its end was asked for, and it is not known whether that took effect.
    doubtful: bool,
    /// The address of its own that the interface had before.
    displaced: Option<Mark>,
}

#[derive(Clone, Debug)]
struct Ended {
    ip: IpAddr,
    place: ProviderId,
    at: Instant,
    displaced: Option<Mark>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    made: BTreeMap<IpAddr, Made>,
    ended: BTreeMap<Mark, Ended>,
    asked: BTreeMap<String, Instant>,
}

impl Recent {
    pub(super) fn made(&mut self, ip: IpAddr, mount: Mount, displaced: Option<Mark>, now: Instant) {
        self.forget(now);
        self.made.insert(ip, Made { mount, at: now, doubtful: false, displaced });
    }

    pub(super) fn ended(&mut self, ip: IpAddr, mount: &Mount, now: Instant) {
        self.forget(now);
        let mut gone = self.made.extract_if(.., |_, made| made.mount.mark == mount.mark);
        let displaced = gone.next().and_then(|(_, made)| made.displaced);
        drop(gone);
        self.ended.insert(mount.mark.clone(), Ended { ip, place: mount.place.clone(), at: now, displaced });
    }

    pub(super) fn doubt(&mut self, mount: &Mount) -> bool {
        let made = self.made.values_mut().find(|made| made.mount.mark == mount.mark);
        made.is_some_and(|made| !std::mem::replace(&mut made.doubtful, true))
    }

    pub(super) fn trust(&mut self, mark: &Mark) {
        for made in self.made.values_mut().filter(|made| made.mount.mark == *mark) {
            made.doubtful = false;
        }
    }

    /// The association that counts, where this one is shown.
    pub(super) fn association(&self, ip: IpAddr, shown: Option<Mount>, now: Instant) -> Option<Mount> {
        self.laid_over(ip, shown, now, |made| !made.doubtful)
    }

    /// The same for somebody who wants to end it.
    pub(super) fn association_to_end(&self, ip: IpAddr, shown: Option<Mount>, now: Instant) -> Option<Mount> {
        self.laid_over(ip, shown, now, |_| true)
    }

    fn laid_over(
        &self,
        ip: IpAddr,
        shown: Option<Mount>,
        now: Instant,
        counts: impl Fn(&Made) -> bool,
    ) -> Option<Mount> {
        let in_force = shown.filter(|shown| !self.ended.get(&shown.mark).is_some_and(|ended| young(ended.at, now)));
        in_force.or_else(|| {
            let made = self.made.get(&ip).filter(|made| young(made.at, now) && counts(made))?;
            Some(made.mount.clone())
        })
    }

    /// What an interface holds that counts, where this is shown.
    pub(super) fn interface(&self, place: &ProviderId, shown: Interface, now: Instant) -> Interface {
        let ended = |ip: IpAddr| {
            self.ended.values().any(|ended| ended.place == *place && ended.ip == ip && young(ended.at, now))
        };
        let made = self
            .made
            .iter()
            .find(|(_, made)| made.mount.place == *place && !made.doubtful && young(made.at, now))
            .map(|(ip, _)| *ip);
        match (shown, made) {
            (Interface::Reserved(ip), _) if !ended(ip) => Interface::Reserved(ip),
            (_, Some(ip)) => Interface::Reserved(ip),
            (Interface::Reserved(_), None) => Interface::Empty,
            (shown, None) => shown,
        }
    }

    pub(super) fn is_of_the_past(&self, place: &ProviderId, own: &Mark, now: Instant) -> bool {
        let mut ended = self.ended.values().filter(|ended| ended.place == *place && young(ended.at, now));
        ended.any(|ended| ended.displaced.as_ref() == Some(own))
    }

    pub(super) fn asked(&mut self, instance: &str, now: Instant) {
        self.forget(now);
        self.asked.insert(instance.to_owned(), now);
    }

    pub(super) fn was_asked(&self, instance: &str, now: Instant) -> bool {
        self.asked.get(instance).is_some_and(|at| now.duration_since(*at) < ASKED_FOR)
    }

    /// What no longer counts.
    pub fn forget(&mut self, now: Instant) {
        self.made.retain(|_, made| young(made.at, now));
        self.ended.retain(|_, ended| young(ended.at, now));
        self.asked.retain(|_, at| now.duration_since(*at) < ASKED_FOR);
    }
}

fn young(at: Instant, now: Instant) -> bool {
    now.duration_since(at) < Provider::Aws.read_lag()
}
