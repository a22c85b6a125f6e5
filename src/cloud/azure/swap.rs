//! Changing: put an address on, take it off. Azure has nothing to give back.
//!
//! Every change begins with a live read, and goes on only if that shows what the order says (F7). A change that the
//! cloud says has ended is not believed until interface and address show it (R3).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Azure,
    ids::{self, Id},
    interface::Document,
    operation::WRITE,
    read::{ADDRESS, ADDRESSES, Live, same_account},
    translate::{Interface, Machine, PublicAddress, User},
};
use crate::cloud::{
    Attach, CloudError, Detach, ErrorKind, Holder, MachineId, Power, Reservation, Restore, Restored, Scope, Verified,
};

const RESTORE: &str = "restore";

/// How long an ended change may need until the address shows it, before each further look.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];

/// What an order to attach comes to, after the live reads.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing to send.
    There,
    Write,
}

impl Azure {
    pub(super) async fn put_on(&self, order: &Attach) -> Result<Verified, CloudError> {
        let id = ids::machine(WRITE, &order.machine.place)?;
        same_account(WRITE, &order.scope, &id)?;
        let live = self.live(&id).await?;
        if live.machine.life != order.machine.instance {
            return Err(another_life(WRITE, &order.machine));
        }
        let address = self.reserved(&order.scope, order.address).await?.ok_or_else(|| not_reserved(order))?;
        let (reservation, _) = self.shown(&address, Some(&live.document.view)).await?;
        if plan(order, &live, &address, &reservation)? == Plan::Write {
            if address.goes_with_machine {
                tracing::warn!(
                    address = %order.address,
                    "the public address has deleteOption Delete: Azure deletes it with the machine that uses it"
                );
            }
            self.write(&live.document, Some(&address.id), &*order.gate).await?;
        }
        let ours = Holder::Machine(order.machine.place.clone());
        let (seen, verified) = self.look(&address.id, |shown, _| shown.holder == ours).await?;
        if seen { Ok(verified) } else { Err(not_shown(order.address)) }
    }

    pub(super) async fn take_off(&self, order: &Detach) -> Result<Verified, CloudError> {
        let id = ids::machine(WRITE, &order.machine.place)?;
        let (same_life, held) = match self.machine(&id).await {
            Ok(machine) if machine.life == order.machine.instance => (true, self.on(&id, &machine, order).await?),
            // Another machine under the same name may hold this address by right: it is none of our business. But what
            // the old one left behind is.
            Ok(_) => (false, self.left_behind(&id, order).await?),
            Err(error) if error.kind == ErrorKind::NotFound => (false, self.left_behind(&id, order).await?),
            Err(error) => return Err(error),
        };
        if let Some((document, address)) = held {
            self.write(&document, None, &*order.gate).await?;
            let off = |_: &Reservation, user: &User| !uses(user, &document.view);
            let (seen, verified) = self.look(&address.id, off).await?;
            return if seen { Ok(verified) } else { Err(not_shown(order.address)) };
        }
        let ours = Holder::Machine(order.machine.place.clone());
        let Some(address) = self.locate(&id.subscription, order.address).await? else {
            let holder = Holder::Foreign("no longer reserved in the subscription".to_owned());
            return Ok(Verified::sure(Instant::now(), holder));
        };
        let (seen, verified) = self.look(&address.id, |shown, _| !same_life || shown.holder != ours).await?;
        if seen { Ok(verified) } else { Err(not_shown(order.address)) }
    }

    /// The cloud has no address to give that is not somebody's own resource.
    pub(super) async fn give_back(&self, order: &Restore) -> Result<Restored, CloudError> {
        let id = ids::machine(RESTORE, &order.machine.place)?;
        match self.machine(&id).await {
            Ok(machine) if machine.life != order.machine.instance => Ok(Restored::MachineGone),
            Ok(machine) => match self.document_of(&id, &machine).await?.view.public() {
                Some(_) => Ok(Restored::Given),
                None => Err(CloudError::new(
                    ErrorKind::Unsupported,
                    RESTORE,
                    "Azure gives a machine no address of its own; its way out is the load balancer's outbound rule or the NAT gateway",
                )),
            },
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Restored::MachineGone),
            Err(error) => Err(error),
        }
    }

    /// The machine's interface and the address, if the one has the other.
    async fn on(
        &self,
        id: &Id,
        machine: &Machine,
        order: &Detach,
    ) -> Result<Option<(Document, PublicAddress)>, CloudError> {
        let document = match self.document_of(id, machine).await {
            Ok(document) => document,
            // Being deleted, or of a kind that we never put anything on: the address says whether it is off.
            Err(error) if matches!(error.kind, ErrorKind::Unsupported) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(public) = document.view.public() else { return Ok(None) };
        let address = self.address(public).await?;
        Ok((address.ip == Some(order.address)).then_some((document, address)))
    }

    /// What a machine that is gone has left behind with the address on it, if it has.
    async fn left_behind(&self, id: &Id, order: &Detach) -> Result<Option<(Document, PublicAddress)>, CloudError> {
        let Some(address) = self.locate(&id.subscription, order.address).await? else { return Ok(None) };
        let User::Interface(config) = &address.user else { return Ok(None) };
        let Some(interface) = config.interface() else { return Ok(None) };
        let document = match self.document(&interface).await {
            Ok(document) => document,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(is_left_by(id, &document.view, &address.id).then_some((document, address)))
    }

    /// The reserved address in the scope, live: found by a list, because there is no call by number, then read by its id.
    async fn reserved(&self, scope: &Scope, ip: IpAddr) -> Result<Option<PublicAddress>, CloudError> {
        let region = ids::location(&scope.region);
        let addresses = self.addresses(&scope.account, scope.resource_group.as_deref()).await?;
        let is_it = |address: &PublicAddress| address.reserved && address.ip == Some(ip) && address.location == region;
        let Some(listed) = addresses.into_iter().find(is_it) else { return Ok(None) };
        Ok(Some(self.address(&listed.id).await?).filter(is_it))
    }

    /// The closing read, repeated for a few seconds while it does not show what is expected, or while the cloud says that
    /// it is not done. Says whether it did.
    async fn look(
        &self,
        id: &Id,
        expected: impl Fn(&Reservation, &User) -> bool,
    ) -> Result<(bool, Verified), CloudError> {
        let mut last = None;
        for pause in LOOKS {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let began = Instant::now();
            let address = match self.address(id).await {
                Ok(address) => address,
                Err(error) if error.kind == ErrorKind::NotFound => {
                    let holder = Holder::Foreign("no longer reserved in the subscription".to_owned());
                    return Ok((true, Verified::sure(began, holder)));
                }
                Err(error) => return Err(error),
            };
            let (reservation, at_rest) = self.shown(&address, None).await?;
            let seen = at_rest && expected(&reservation, &address.user);
            let verified = Verified::sure(began, reservation.holder);
            if seen {
                return Ok((true, verified));
            }
            last = Some(verified);
        }
        last.map(|verified| (false, verified))
            .ok_or_else(|| CloudError::new(ErrorKind::Unavailable, ADDRESS, "not looked at"))
    }
}

/// A deleted machine may leave its interface behind. It is the machine's if it is of no other one and stands in the same
/// resource group; anything else is somebody's (P1).
fn is_left_by(machine: &Id, interface: &Interface, address: &Id) -> bool {
    interface.machine.is_none() && interface.id.same_group(machine) && interface.holds(address)
}

fn uses(user: &User, interface: &Interface) -> bool {
    match user {
        User::Interface(config) => config.interface().is_some_and(|id| id.key() == interface.id.key()),
        User::Nobody | User::Other(_) => false,
    }
}

/// Another interface than ours has it; a change that is under way names none yet.
fn uses_another(user: &User) -> bool {
    matches!(user, User::Interface(_))
}

/// What the reads allow. Pure.
fn plan(order: &Attach, live: &Live, address: &PublicAddress, reservation: &Reservation) -> Result<Plan, CloudError> {
    let refuse = |kind: ErrorKind, what: String| Err(CloudError::new(kind, WRITE, what));
    let place = &order.machine.place;
    let ip = order.address;
    let here = live.document.view.holds(&address.id);
    match &reservation.holder {
        Holder::Machine(holder) if holder == place && here => return Ok(Plan::There),
        // On the interface, and the address does not say so yet: the closing read waits for that.
        Holder::Free | Holder::Foreign(_) if here && !uses_another(&address.user) => return Ok(Plan::There),
        Holder::Machine(holder) => return refuse(ErrorKind::Conflict, format!("{ip} is held by {holder}")),
        Holder::Foreign(holder) => return refuse(ErrorKind::Conflict, format!("{ip} is held by {holder}")),
        Holder::Free => {}
    }
    if let Some(other) = live.document.view.public().or(live.document.view.besides.as_ref()) {
        let what = format!("{place} already has the public address {}, which is left alone", other.name());
        return refuse(ErrorKind::Conflict, what);
    }
    if live.machine.power == Power::Stopped {
        return refuse(ErrorKind::Invalid, format!("{place} does not run"));
    }
    if live.machine.location != address.location {
        let what = format!("{ip} is in {}, {place} in {}", address.location, live.machine.location);
        return refuse(ErrorKind::Invalid, what);
    }
    if !reservation.reach.covers(&live.machine.zone) {
        let what = format!("{ip} is of zone {}, {place} in zone {}", address.zones.join(", "), live.machine.zone);
        return refuse(ErrorKind::Invalid, what);
    }
    Ok(Plan::Write)
}

fn another_life(call: &'static str, machine: &MachineId) -> CloudError {
    CloudError::new(ErrorKind::NotFound, call, format!("{machine} is gone; another machine has its name"))
}

fn not_reserved(order: &Attach) -> CloudError {
    let group = order.scope.resource_group.as_ref().map(|group| format!(", resource group {group}"));
    let what = format!("{} is not reserved in {}{}", order.address, order.scope, group.unwrap_or_default());
    CloudError::new(ErrorKind::NotFound, ADDRESSES, what)
}

fn not_shown(address: IpAddr) -> CloudError {
    let what = format!("the change has ended, but {address} does not show it yet");
    CloudError::new(ErrorKind::Unavailable, ADDRESS, what)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::cloud::{Closed, Gate, Provider, ProviderId, azure::translate};

    struct Open;

    impl Gate for Open {
        fn open_for(&self, _: Duration) -> Result<(), Closed> {
            Ok(())
        }
    }

    const GROUP: &str = "/subscriptions/0a1b/resourceGroups/mc_nodes/providers";

    fn vm(name: &str) -> Id {
        Id::parse(&format!("{GROUP}/Microsoft.Compute/virtualMachines/{name}")).unwrap()
    }

    fn place(name: &str) -> ProviderId {
        ProviderId::new(format!("azure://{}", vm(name).text()))
    }

    fn address_id(name: &str) -> Id {
        Id::parse(&format!("{GROUP}/Microsoft.Network/publicIPAddresses/{name}")).unwrap()
    }

    fn order() -> Attach {
        Attach {
            scope: Scope {
                provider: Provider::Azure,
                account: "0a1b".to_owned(),
                region: "westeurope".to_owned(),
                resource_group: None,
            },
            address: "203.0.113.7".parse().unwrap(),
            machine: MachineId { place: place("node-1"), instance: "life".to_owned() },
            operation: Uuid::from_u128(7),
            may_displace_own: true,
            gate: Arc::new(Open),
        }
    }

    fn document(machine: Option<&str>, public: Option<&str>) -> Document {
        let id = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-1");
        let mut config = json!({"id": format!("{id}/ipConfigurations/c"), "properties": {"primary": true}});
        if let Some(public) = public {
            config["properties"]["publicIPAddress"] = json!({"id": address_id(public).text()});
        }
        let machine = machine.map(|machine| json!({"id": vm(machine).text()}));
        Document::new(json!({
            "id": id, "etag": "W/1", "properties": {"virtualMachine": machine, "ipConfigurations": [config]},
        }))
        .unwrap()
    }

    fn live(public: Option<&str>) -> Live {
        let machine = Machine {
            life: "life".to_owned(),
            power: Power::Running,
            location: "westeurope".to_owned(),
            zone: "westeurope-1".to_owned(),
            interface: None,
        };
        Live { machine, document: document(Some("node-1"), public) }
    }

    fn address(more: Value) -> PublicAddress {
        let mut shown = json!({
            "id": address_id("sip-1").text(), "location": "westeurope",
            "properties": {"publicIPAllocationMethod": "Static", "ipAddress": "203.0.113.7"},
        });
        shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        translate::public_address(&serde_json::from_value(shown).unwrap()).unwrap()
    }

    fn planned(live: &Live, more: Value, holder: Holder) -> Result<Plan, ErrorKind> {
        let address = address(more);
        let reservation = Reservation { holder, ..translate::reservation(&address, None, false) };
        plan(&order(), live, &address, &reservation).map_err(|error| error.kind)
    }

    fn foreign() -> Holder {
        Holder::Foreign("load balancer web".to_owned())
    }

    #[test]
    fn what_is_there_needs_nothing_and_an_empty_interface_is_written() {
        let there = live(Some("SIP-1"));
        for holder in [Holder::Machine(place("NODE-1")), Holder::Free] {
            assert_eq!(planned(&there, json!({}), holder), Ok(Plan::There));
        }
        assert_eq!(planned(&live(None), json!({}), Holder::Free), Ok(Plan::Write));
    }

    #[test]
    fn nothing_is_stolen_and_nothing_is_displaced() {
        for holder in [Holder::Machine(place("node-2")), foreign()] {
            assert_eq!(planned(&live(None), json!({}), holder), Err(ErrorKind::Conflict));
        }
        // On the machine, but on another interface of it.
        let elsewhere = Holder::Machine(place("node-1"));
        assert_eq!(planned(&live(None), json!({}), elsewhere), Err(ErrorKind::Conflict));
        assert_eq!(planned(&live(Some("sip-2")), json!({}), Holder::Free), Err(ErrorKind::Conflict));
    }

    #[test]
    fn what_azure_would_refuse_is_not_sent() {
        let mut stopped = live(None);
        stopped.machine.power = Power::Stopped;
        assert_eq!(planned(&stopped, json!({}), Holder::Free), Err(ErrorKind::Invalid));
        for (more, expected) in [
            (json!({"zones": ["2"]}), Err(ErrorKind::Invalid)),
            (json!({"zones": ["1"]}), Ok(Plan::Write)),
            (json!({"zones": ["1", "2", "3"]}), Ok(Plan::Write)),
            (json!({"location": "northeurope"}), Err(ErrorKind::Invalid)),
            (json!({"location": "West Europe"}), Ok(Plan::Write)),
        ] {
            assert_eq!(planned(&live(None), more.clone(), Holder::Free), expected, "{more}");
        }
    }

    #[test]
    fn an_interface_was_left_by_a_machine_only_if_it_is_of_none_and_in_its_group() {
        let left = |machine: Option<&str>, public: &str, by: &Id| {
            is_left_by(by, &document(machine, Some(public)).view, &address_id("sip-1"))
        };
        assert!(left(None, "sip-1", &vm("node-1")));
        assert!(!left(Some("node-2"), "sip-1", &vm("node-1")), "another machine has it");
        assert!(!left(None, "sip-2", &vm("node-1")), "another address is on it");
        let of_another_group = Id::parse(&vm("node-1").text().replace("mc_nodes", "other")).unwrap();
        assert!(!left(None, "sip-1", &of_another_group), "it is another team's");
    }
}
