//! Changing: put an address on, take it off.
//!
//! Every change begins with a live read, and goes on only if that shows what the order says (F7). It is one request, sent
//! once, and its answer is believed (R3).

use std::{error::Error, future::Future, time::Instant};

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::{
    Aws, errors,
    instance::Live,
    read::{ADDRESSES, LOOKS, SERVICE},
    translate::{self, Association, Shown},
};
use crate::cloud::{
    Attach, CloudError, Detach, ErrorKind, Gate, Holder, Interface, Place, Power, Provider, Scope, Verified,
    request::request,
};

pub(super) const ASSOCIATE: &str = "AssociateAddress";
pub(super) const DISASSOCIATE: &str = "DisassociateAddress";

/// What an order to attach comes to, after the live reads.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing to send.
    There,
    Associate,
}

impl Aws {
    pub(super) async fn put_on(&self, order: &Attach) -> Result<Verified, CloudError> {
        let place = translate::place(ASSOCIATE, &order.machine.place)?;
        if place.region != order.scope.region {
            return Err(other_region(order, place));
        }
        let began = Instant::now();
        let mut live = self.live(&order.machine.place).await?;
        if live.machine != order.machine {
            return Err(another_life(order));
        }
        let shown = self.address(&order.scope.region, order.address).await?.ok_or_else(|| not_reserved(order))?;
        let now = Instant::now();
        let association = self.recent(|recent| {
            live.primary.external = recent.interface(&live.primary.id, live.primary.external.clone(), now);
            recent.association(&shown.allocation, shown.association.clone(), now)
        });
        match plan(order, &live, &shown, association.as_ref())? {
            Plan::There => Ok(Verified::read(began, on(order))),
            Plan::Associate => self.associate(order, &live, &shown).await,
        }
    }

    async fn associate(&self, order: &Attach, live: &Live, shown: &Shown) -> Result<Verified, CloudError> {
        let send = self
            .client(&order.scope.region)
            .associate_address()
            .allocation_id(&shown.allocation)
            // By interface: by instance, EC2 refuses where there are several. By private address: to be sure which.
            .network_interface_id(&live.primary.id)
            .private_ip_address(&live.primary.private_ip)
            // Unsaid means yes, and takes it from whoever has it.
            .allow_reassociation(false)
            .send();
        let answer = match self.change(ASSOCIATE, &*order.gate, send).await {
            Ok(answer) => answer,
            Err(error) if error.settled && error.kind == ErrorKind::Conflict => {
                return self.whose(order, live, error).await;
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        if let Some(id) = answer.association_id.filter(|id| !id.is_empty()) {
            let association = Association {
                id,
                interface: live.primary.id.clone(),
                private_ip: live.primary.private_ip.clone(),
                instance: live.machine.instance.clone(),
            };
            let displaced = live.primary.lent;
            self.recent(|recent| recent.made(&shown.allocation, order.address, association, displaced, now));
        }
        Ok(Verified::sure(now, on(order)))
    }

    /// The address is associated, says the cloud: by us, if an earlier answer was lost, or by somebody else.
    async fn whose(&self, order: &Attach, live: &Live, refused: CloudError) -> Result<Verified, CloudError> {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let shown = self.address(&order.scope.region, order.address).await?.ok_or_else(|| not_reserved(order))?;
            let association =
                self.recent(|recent| recent.association(&shown.allocation, shown.association.clone(), began));
            match association {
                Some(association) if association.is_on(live) => return Ok(Verified::read(began, on(order))),
                Some(_) => return Err(refused),
                None => {}
            }
        }
        let why = format!("{}, but it is not shown yet with what", refused.message);
        Err(CloudError::new(ErrorKind::Unavailable, ASSOCIATE, why))
    }

    pub(super) async fn take_off(&self, order: &Detach) -> Result<Verified, CloudError> {
        translate::place(DISASSOCIATE, &order.machine.place)?;
        let began = Instant::now();
        let shown = self.address(&order.scope.region, order.address).await?;
        let Some(shown) = shown else { return Ok(released(order, began)) };
        let association =
            self.recent(|recent| recent.association_to_end(&shown.allocation, shown.association.clone(), began));
        let Some(association) = association else { return Ok(Verified::read(began, Holder::Free)) };
        if association.instance != order.machine.instance {
            return Ok(Verified::read(began, shown.reservation.holder));
        }
        match self.live(&order.machine.place).await {
            Ok(live) if association.is_on(&live) => self.disassociate(order, &association).await,
            Ok(_) => {
                let elsewhere = format!("another interface of {}", order.machine.place);
                Ok(Verified::read(began, Holder::Foreign(elsewhere)))
            }
            // With the machine its associations end, sooner or later.
            Err(error) if error.kind == ErrorKind::NotFound => self.until_free(order).await,
            Err(error) => Err(error),
        }
    }

    async fn disassociate(&self, order: &Detach, association: &Association) -> Result<Verified, CloudError> {
        let client = self.client(&order.scope.region);
        let send = client.disassociate_address().association_id(&association.id).send();
        let was_sure = self.recent(|recent| recent.doubt(association));
        match self.change(DISASSOCIATE, &*order.gate, send).await {
            Ok(_) => {
                let now = Instant::now();
                self.recent(|recent| recent.ended(order.address, association, now));
                Ok(Verified::sure(now, Holder::Free))
            }
            // Somebody was quicker: this association has ended, and only a read can say what followed.
            Err(error) if error.settled && error.kind == ErrorKind::NotFound => {
                self.recent(|recent| recent.ended(order.address, association, Instant::now()));
                self.until_free(order).await
            }
            Err(error) => {
                if error.settled && was_sure {
                    self.recent(|recent| recent.trust(association));
                }
                Err(error)
            }
        }
    }

    /// The address is off the machine as far as we know; looks who has it, and waits a little while it shows the machine.
    async fn until_free(&self, order: &Detach) -> Result<Verified, CloudError> {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let Some(shown) = self.address(&order.scope.region, order.address).await? else {
                return Ok(released(order, began));
            };
            // What we made on a machine that is gone has gone with it: only what is shown counts here.
            let gone =
                self.recent(|recent| recent.association(&shown.allocation, shown.association.clone(), began).is_none());
            match shown.association {
                None => return Ok(Verified::sure(began, Holder::Free)),
                Some(_) if gone => return Ok(Verified::sure(began, Holder::Free)),
                Some(other) if other.instance != order.machine.instance => {
                    return Ok(Verified::sure(began, shown.reservation.holder));
                }
                Some(_) => {}
            }
        }
        let why = format!("{} is off, but still shown on {}", order.address, order.machine.place);
        Err(CloudError::new(ErrorKind::Unavailable, ADDRESSES, why))
    }

    /// Sends one change, once: the gate answers for one send (F1), and the client repeats nothing.
    ///
    /// # Errors
    /// Unsettled when it is not known whether it took effect.
    pub(super) async fn change<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        call: &'static str,
        gate: &dyn Gate,
        send: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CloudError> {
        // Futures do nothing before they are awaited: nothing has left up to here.
        gate.open_for(self.timeout).map_err(|closed| errors::not_sent(call, &closed))?;
        request(Provider::Aws, SERVICE, call, async {
            self.believed(match tokio::time::timeout(self.timeout, send).await {
                Ok(answer) => answer.map_err(|error| errors::of_change(call, &error)),
                Err(_) => Err(errors::late(call).unsettled()),
            })
        })
        .await
    }
}

/// What the reads allow. Pure.
fn plan(order: &Attach, live: &Live, shown: &Shown, association: Option<&Association>) -> Result<Plan, CloudError> {
    let refuse = |kind, what: String| Err(CloudError::new(kind, ASSOCIATE, what));
    let (address, machine) = (order.address, &order.machine.place);
    match association {
        Some(association) if association.is_on(live) => return Ok(Plan::There),
        Some(association) if association.instance == live.machine.instance => {
            return refuse(ErrorKind::Conflict, format!("{address} is on another interface of {machine}"));
        }
        Some(association) => {
            let holder = match &shown.reservation.holder {
                Holder::Foreign(holder) => holder.clone(),
                Holder::Machine(_) | Holder::Free => association.instance.clone(),
            };
            return refuse(ErrorKind::Conflict, format!("{address} is held by {holder}"));
        }
        None => {}
    }
    if let Holder::Foreign(holder) = &shown.reservation.holder {
        return refuse(ErrorKind::Conflict, format!("{address} is held by {holder}"));
    }
    if !shown.reservation.reach.covers(&live.zone) {
        return refuse(
            ErrorKind::Invalid,
            format!("{address} is of another network border group than zone {} of {machine}", live.zone),
        );
    }
    match &live.primary.external {
        // Shown on the interface, and not by the address: sending tells, and takes it from nobody.
        Interface::Reserved(shown) if *shown == address => {}
        // EC2 would displace it without a word.
        Interface::Reserved(other) => {
            return refuse(ErrorKind::Conflict, format!("{machine} already holds the reserved address {other}"));
        }
        Interface::Ephemeral(_) if !order.may_displace_own => {
            return refuse(
                ErrorKind::Conflict,
                format!("{machine} has a public address of its own, which the order does not allow to displace"),
            );
        }
        Interface::Ephemeral(_) | Interface::Empty => {}
    }
    match live.power {
        Power::Running | Power::Stopped => Ok(Plan::Associate),
        Power::Changing => refuse(ErrorKind::Unavailable, format!("{machine} is neither running nor stopped")),
    }
}

fn on(order: &Attach) -> Holder {
    Holder::Machine(order.machine.place.clone())
}

fn released(order: &Detach, began: Instant) -> Verified {
    Verified::sure(began, Holder::Foreign(format!("no longer reserved in {}", order.scope.region)))
}

fn another_life(order: &Attach) -> CloudError {
    CloudError::new(ErrorKind::NotFound, ASSOCIATE, format!("{} is gone", order.machine))
}

fn other_region(order: &Attach, place: &Place) -> CloudError {
    let Attach { address, scope: Scope { region, .. }, machine, .. } = order;
    let why = format!("{address} is of region {region}, and {} stands in {}", machine.place, place.region);
    CloudError::new(ErrorKind::Invalid, ASSOCIATE, why)
}

fn not_reserved(order: &Attach) -> CloudError {
    let why = format!("{} is not reserved in {}", order.address, order.scope);
    CloudError::new(ErrorKind::NotFound, ADDRESSES, why)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use uuid::Uuid;

    use super::*;
    use crate::cloud::{Closed, MachineId, Own, Provider, ProviderId, Reach, Reservation, aws::instance::Primary};

    struct Open;

    impl Gate for Open {
        fn open_for(&self, _: Duration) -> Result<(), Closed> {
            Ok(())
        }
    }

    const ADDRESS: &str = "203.0.113.7";

    fn node() -> MachineId {
        "aws:///us-west-2a/i-0a1b#i-0a1b".parse().unwrap()
    }

    fn order(may_displace_own: bool) -> Attach {
        Attach {
            scope: Scope {
                provider: Provider::Aws,
                account: String::new(),
                region: "us-west-2".to_owned(),
                resource_group: None,
            },
            address: ADDRESS.parse().unwrap(),
            machine: node(),
            operation: Uuid::from_u128(7),
            may_displace_own,
            gate: Arc::new(Open),
        }
    }

    fn live(external: Interface) -> Live {
        let primary = Primary { id: "eni-0".to_owned(), private_ip: "10.0.0.1".to_owned(), external, lent: None };
        Live { machine: node(), power: Power::Running, zone: "us-west-2a".to_owned(), primary, interfaces: 1 }
    }

    fn free() -> Shown {
        let reservation = Reservation {
            holder: Holder::Free,
            name: "eipalloc-1".to_owned(),
            network_tier: None,
            reach: Reach::BorderGroup("us-west-2".to_owned()),
            tags: Default::default(),
        };
        Shown { ip: ADDRESS.parse().unwrap(), allocation: "eipalloc-1".to_owned(), association: None, reservation }
    }

    fn association(instance: &str, interface: &str) -> Association {
        Association {
            id: "eipassoc-1".to_owned(),
            interface: interface.to_owned(),
            private_ip: "10.0.0.1".to_owned(),
            instance: instance.to_owned(),
        }
    }

    fn kind(plan: Result<Plan, CloudError>) -> ErrorKind {
        plan.unwrap_err().kind
    }

    #[test]
    fn what_is_there_needs_nothing_whatever_the_interface_shows() {
        for external in [Interface::Empty, Interface::Reserved(ADDRESS.parse().unwrap())] {
            let there = plan(&order(false), &live(external), &free(), Some(&association("i-0a1b", "eni-0")));
            assert_eq!(there.unwrap(), Plan::There);
        }
    }

    #[test]
    fn nothing_is_stolen_and_nothing_reserved_is_displaced() {
        for elsewhere in [association("i-0c2d", "eni-9"), association("i-0a1b", "eni-1"), association("", "eni-9")] {
            assert_eq!(
                kind(plan(&order(true), &live(Interface::Empty), &free(), Some(&elsewhere))),
                ErrorKind::Conflict
            );
        }
        let other = Interface::Reserved("203.0.113.8".parse().unwrap());
        assert_eq!(kind(plan(&order(true), &live(other), &free(), None)), ErrorKind::Conflict);
        let mut managed = free();
        managed.reservation.holder = Holder::Foreign("the service nlb".to_owned());
        assert_eq!(kind(plan(&order(true), &live(Interface::Empty), &managed, None)), ErrorKind::Conflict);
    }

    #[test]
    fn an_empty_interface_is_filled_and_an_own_address_goes_only_if_allowed() {
        let own = || live(Interface::Ephemeral(Own::default()));
        assert_eq!(plan(&order(false), &live(Interface::Empty), &free(), None).unwrap(), Plan::Associate);
        assert_eq!(plan(&order(true), &own(), &free(), None).unwrap(), Plan::Associate);
        assert_eq!(kind(plan(&order(false), &own(), &free(), None)), ErrorKind::Conflict);
    }

    #[test]
    fn an_interface_and_an_address_that_contradict_each_other_are_settled_by_asking() {
        let shown = live(Interface::Reserved(ADDRESS.parse().unwrap()));
        assert_eq!(plan(&order(false), &shown, &free(), None).unwrap(), Plan::Associate);
    }

    #[test]
    fn another_border_group_and_a_machine_between_two_states_are_refused() {
        let edge = Live { zone: "us-west-2-lax-1a".to_owned(), ..live(Interface::Empty) };
        assert_eq!(kind(plan(&order(true), &edge, &free(), None)), ErrorKind::Invalid);
        let starting = Live { power: Power::Changing, ..live(Interface::Empty) };
        assert_eq!(kind(plan(&order(true), &starting, &free(), None)), ErrorKind::Unavailable);
    }

    #[test]
    fn a_machine_of_another_cloud_is_not_touched() {
        assert!(translate::place(ASSOCIATE, &ProviderId::new("gce://prod/us-west1-a/node-1")).is_err());
    }
}
