//! Giving back: a public address of its own for a machine that a reserved one has left.
//!
//! AWS does it by itself where the instance has one interface. Where it has several, it is asked for one, once for a while.
//! A stopped instance has none of its own: one with one interface is given another when it starts, which nobody has to wait for.

use std::time::Instant;

use super::{Aws, instance::Live, read::LOOKS, translate};
use crate::cloud::{CloudError, ErrorKind, Interface, Power, Restore, Restored};

pub(super) const MODIFY: &str = "ModifyNetworkInterfaceAttribute";

enum Paid {
    Yes(Restored),
    NotYet(Box<Live>),
}

impl Aws {
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
        if live.power == Power::Stopped && live.interfaces <= 1 {
            let why = format!("{} is stopped; AWS gives it one by itself when it starts", order.machine.place);
            return Err(CloudError::new(ErrorKind::Unsupported, MODIFY, why));
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
        let (shown, now) = (live.primary.external.clone(), Instant::now());
        live.primary.external = self.recent(|recent| recent.interface(&live.primary.id, shown, now));
        let of_the_past = |lent| self.recent(|recent| recent.is_of_the_past(&live.primary.id, lent, now));
        let has_none = match live.primary.external {
            Interface::Empty => true,
            Interface::Ephemeral(_) => live.primary.lent.is_some_and(of_the_past),
            Interface::Reserved(_) => false,
        };
        Ok(if has_none { Paid::NotYet(live.into()) } else { Paid::Yes(Restored::Given) })
    }
}

/// Says what is lost where AWS gives nothing back by itself.
fn refused_for(live: &Live, error: CloudError) -> CloudError {
    let machine = &live.machine.place;
    match error.kind {
        // It may well have another one by now, which is not shown yet.
        _ if matches!(live.primary.external, Interface::Ephemeral(_)) => CloudError::new(
            ErrorKind::Unavailable,
            MODIFY,
            format!("{machine} is still shown with what it had before, and refuses: {}", error.message),
        ),
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
