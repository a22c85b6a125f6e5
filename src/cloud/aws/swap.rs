//! Changing: put an address on, take it off, give back what a machine had.
//!
//! Every change begins with a live read, and goes on only if that shows what the order says (F7). It is one request, sent
//! once, and its answer is believed (R3).

use std::{error::Error, future::Future, time::Instant};

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::{
    Aws, errors,
    instance::Live,
    read::{ADDRESSES, LOOKS},
    translate::{self, Association, Shown},
};
use crate::cloud::{
    Attach, CloudError, Detach, ErrorKind, Gate, Holder, Interface, Place, Power, Restore, Restored, Scope, Verified,
};

pub(super) const ASSOCIATE: &str = "AssociateAddress";
pub(super) const DISASSOCIATE: &str = "DisassociateAddress";
pub(super) const MODIFY: &str = "ModifyNetworkInterfaceAttribute";

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
            return Err(other_region(order, &place));
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
            Plan::There => Ok(Verified { began, holder: on(order) }),
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
            self.recent(|recent| recent.made(&shown.allocation, order.address, association, now));
        }
        Ok(Verified { began: now, holder: on(order) })
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
                Some(association) if association.is_on(live) => return Ok(Verified { began, holder: on(order) }),
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
        let Some(association) = association else { return Ok(Verified { began, holder: Holder::Free }) };
        if association.instance != order.machine.instance {
            return Ok(Verified { began, holder: shown.reservation.holder });
        }
        match self.live(&order.machine.place).await {
            Ok(live) if association.is_on(&live) => self.disassociate(order, &association).await,
            Ok(_) => {
                let elsewhere = format!("another interface of {}", order.machine.place);
                Ok(Verified { began, holder: Holder::Foreign(elsewhere) })
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
                Ok(Verified { began: now, holder: Holder::Free })
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
                None => return Ok(Verified { began, holder: Holder::Free }),
                Some(_) if gone => return Ok(Verified { began, holder: Holder::Free }),
                Some(other) if other.instance != order.machine.instance => {
                    return Ok(Verified { began, holder: shown.reservation.holder });
                }
                Some(_) => {}
            }
        }
        let why = format!("{} is off, but still shown on {}", order.address, order.machine.place);
        Err(CloudError::new(ErrorKind::Unavailable, ADDRESSES, why))
    }

    pub(super) async fn give_back(&self, order: &Restore) -> Result<Restored, CloudError> {
        let place = translate::place(MODIFY, &order.machine.place)?;
        let live = match self.paid(order).await? {
            Paid::Yes(restored) => return Ok(restored),
            Paid::NotYet(live) => live,
        };
        if live.power == Power::Changing {
            let why = format!("{} is neither running nor stopped", order.machine.place);
            return Err(CloudError::new(ErrorKind::Unavailable, MODIFY, why));
        }
        let instance = &order.machine.instance;
        if !self.recent(|recent| recent.was_asked(instance, Instant::now())) {
            let client = self.client(&place.region);
            let ask = client.modify_network_interface_attribute();
            let ask = ask.network_interface_id(&live.primary.id).associate_public_ip_address(true);
            if let Err(error) = self.change(MODIFY, &*order.gate, ask.send()).await {
                if !error.settled {
                    return Err(error);
                }
                // Refused because AWS was quicker, or the machine has just gone: only a read can say.
                return match self.paid(order).await? {
                    Paid::Yes(restored) => Ok(restored),
                    Paid::NotYet(live) => Err(refused_for(&live, error)),
                };
            }
            self.recent(|recent| recent.asked(instance, Instant::now()));
        }
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            if let Paid::Yes(restored) = self.paid(order).await? {
                return Ok(restored);
            }
        }
        let why = format!("{} was asked for an address of its own and does not show one yet", order.machine.place);
        Err(CloudError::new(ErrorKind::Unavailable, MODIFY, why))
    }

    /// How the debt to a machine has ended, if it has.
    async fn paid(&self, order: &Restore) -> Result<Paid, CloudError> {
        let mut live = match self.live(&order.machine.place).await {
            Ok(live) if live.machine == order.machine => live,
            Ok(_) => return Ok(Paid::Yes(Restored::MachineGone)),
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Paid::Yes(Restored::MachineGone)),
            Err(error) => return Err(error),
        };
        let shown = live.primary.external.clone();
        live.primary.external = self.recent(|recent| recent.interface(&live.primary.id, shown, Instant::now()));
        Ok(match live.primary.external {
            Interface::Empty => Paid::NotYet(live),
            Interface::Ephemeral(_) | Interface::Reserved(_) => Paid::Yes(Restored::Given),
        })
    }

    /// Sends one change, once: the gate answers for one send (F1), and the client repeats nothing.
    ///
    /// # Errors
    /// Unsettled when it is not known whether it took effect.
    async fn change<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        call: &'static str,
        gate: &dyn Gate,
        send: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CloudError> {
        // Futures do nothing before they are awaited: nothing has left up to here.
        gate.open_for(self.timeout).map_err(|closed| errors::not_sent(call, &closed))?;
        match tokio::time::timeout(self.timeout, send).await {
            Ok(answer) => answer.map_err(|error| errors::of_change(call, &error)),
            Err(_) => Err(errors::late(call).unsettled()),
        }
    }
}

enum Paid {
    Yes(Restored),
    NotYet(Live),
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

/// Says what is lost where AWS gives nothing back by itself.
fn refused_for(live: &Live, error: CloudError) -> CloudError {
    let machine = &live.machine.place;
    match error.kind {
        ErrorKind::Denied if live.interfaces <= 1 => CloudError::new(
            ErrorKind::Unavailable,
            MODIFY,
            format!("{machine} has one interface, so AWS gives it an address of its own by itself within minutes"),
        ),
        ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Unsupported => {
            let message = format!(
                "{machine} stays without a public address of its own: with {} interfaces AWS gives none back by itself; {}",
                live.interfaces, error.message
            );
            CloudError { message, ..error }
        }
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Unauthenticated
        | ErrorKind::Throttled
        | ErrorKind::Quota
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => error,
    }
}

fn on(order: &Attach) -> Holder {
    Holder::Machine(order.machine.place.clone())
}

fn released(order: &Detach, began: Instant) -> Verified {
    Verified { began, holder: Holder::Foreign(format!("no longer reserved in {}", order.scope.region)) }
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
