//! Changing: put an address on, take it off, give back what a machine had.
//!
//! Every change begins with a live read, and goes on only if that shows what the order says (F7). A change that the
//! cloud says has ended is not believed until the address itself shows it (R3).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use google_cloud_compute_v1::model::{
    AccessConfig,
    access_config::{NetworkTier, Type},
};
use google_cloud_gax::{options::RequestOptionsBuilder as _, retry_policy::NeverRetry};
use uuid::Uuid;

use super::{
    Gcp, errors,
    translate::{self, Live, PRIMARY},
};
use crate::cloud::{
    Attach, CloudError, Detach, ErrorKind, Gate, Holder, Interface, MachineId, Own, Place, Reservation, Restore,
    Restored, Scope, Verified,
};

const ADD: &str = "instances.addAccessConfig";
const DELETE: &str = "instances.deleteAccessConfig";
const VERIFY: &str = "addresses.list";

/// How long an ended change may need until the address shows it, before each further look.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];

/// What an order to attach comes to, after the live reads.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing to send.
    There,
    Add {
        /// The access config that has to go first.
        displace: Option<String>,
    },
}

impl Gcp {
    pub(super) async fn put_on(&self, order: &Attach) -> Result<Verified, CloudError> {
        let place = translate::place(ADD, &order.machine.place)?;
        // The cloud would say so only after the machine's own address has been taken off to make room.
        if place.region != order.scope.region {
            return Err(out_of_reach(order, place));
        }
        let live = self.live(&order.machine.place).await?;
        if live.machine != order.machine {
            return Err(errors::another_life(ADD, &order.machine));
        }
        let reservation = self.reserved(&order.scope, order.address).await?.ok_or_else(|| not_reserved(order))?;
        // What sits there already matters only if it is not the address itself: then one more read tells whose it is.
        let interface =
            if live.holds(order.address) { Interface::Reserved(order.address) } else { self.interface(&live).await? };
        let gate = &*order.gate;
        if let Plan::Add { displace } = plan(order, &live, &interface, &reservation)? {
            if let Some(name) = displace {
                self.delete(&order.machine, &name, order.operation, gate).await?;
            }
            let config = access_config(order.operation, reservation.network_tier.as_deref())
                .set_nat_ip(order.address.to_string());
            self.add(&order.machine, config, order.operation, "add", gate).await?;
        }
        let ours = Holder::Machine(order.machine.place.clone());
        let (seen, verified) = self.look(&order.scope, order.address, |holder| *holder == ours).await?;
        if seen { Ok(verified) } else { Err(not_shown(order.address)) }
    }

    pub(super) async fn take_off(&self, order: &Detach) -> Result<Verified, CloudError> {
        let ours = Holder::Machine(order.machine.place.clone());
        let same_life = match self.live(&order.machine.place).await {
            Ok(live) if live.machine == order.machine => {
                if let Some(config) = live.config.filter(|config| config.ip == Some(order.address)) {
                    self.delete(&order.machine, &config.name, order.operation, &*order.gate).await?;
                }
                true
            }
            // Another machine under the same name may hold this address by right: it is none of our business.
            Ok(_) => false,
            Err(error) if error.kind == ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let (seen, verified) = self.look(&order.scope, order.address, |holder| !same_life || *holder != ours).await?;
        if seen {
            return Ok(verified);
        }
        // Still there, but the interface that is ours to change has let go: either the cloud lags, or it is on another one.
        match self.live(&order.machine.place).await {
            Ok(live) if live.machine == order.machine && !live.holds(order.address) => {
                let elsewhere = format!("another interface of {}", order.machine.place);
                Ok(Verified::sure(verified.began, Holder::Foreign(elsewhere)))
            }
            _ => Err(not_shown(order.address)),
        }
    }

    pub(super) async fn give_back(&self, order: &Restore) -> Result<Restored, CloudError> {
        if let Some(ended) = self.paid(&order.machine).await? {
            return Ok(ended);
        }
        let Own { network_tier, public_ptr_domain_name } = &order.own;
        let plain = access_config(order.operation, network_tier.as_deref());
        let mut added = Ok(());
        if let Some(name) = public_ptr_domain_name {
            let named = plain.clone().set_set_public_ptr(true).set_public_ptr_domain_name(name);
            added = self.add(&order.machine, named, order.operation, "restore", &*order.gate).await;
        }
        // The new address is another one, so the cloud may refuse the old name for it; an address without the name is
        // still far better than none.
        if public_ptr_domain_name.is_none() || added.as_ref().is_err_and(refuses_the_name) {
            added = self.add(&order.machine, plain, order.operation, "restore without name", &*order.gate).await;
        }
        match added {
            Err(error) if !error.settled => Err(error),
            // Refused because somebody was quicker, or the machine has just gone: only a read can say.
            Err(error) => self.paid(&order.machine).await?.ok_or(error),
            Ok(()) => self.paid(&order.machine).await?.ok_or_else(|| {
                CloudError::new(ErrorKind::Unavailable, ADD, "added, but the machine does not show it yet")
            }),
        }
    }

    /// How the debt to a machine has ended, if it has.
    async fn paid(&self, machine: &MachineId) -> Result<Option<Restored>, CloudError> {
        match self.live(&machine.place).await {
            Ok(live) if live.machine != *machine => Ok(Some(Restored::MachineGone)),
            Ok(live) => Ok(live.config.map(|_| Restored::Given)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Some(Restored::MachineGone)),
            Err(error) => Err(error),
        }
    }

    /// Deletes the access config of that name, as just read. Already deleted is success; and so is what another machine under that name
    /// had: what follows tells, and puts something in its place.
    async fn delete(
        &self,
        machine: &MachineId,
        name: &str,
        operation: Uuid,
        gate: &dyn Gate,
    ) -> Result<(), CloudError> {
        let place = translate::place(DELETE, &machine.place)?;
        let delete = self
            .instances
            .delete_access_config()
            .set_project(&place.account)
            .set_zone(&place.zone)
            .set_instance(&place.machine)
            .set_network_interface(PRIMARY)
            .set_access_config(name)
            .set_request_id(request_id(operation, &format!("delete {name}")))
            .with_retry_policy(NeverRetry);
        let Err(refused) = self.change(DELETE, place, gate, delete.send()).await else {
            return Ok(());
        };
        // Somebody may have been quicker; the cloud's words for that are many, a read is sure.
        if refused.settled && matches!(refused.kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Conflict) {
            let live = self.live(&machine.place).await?;
            if live.machine == *machine && !live.has_config(name) {
                return Ok(());
            }
        }
        Err(refused)
    }

    /// # Errors
    /// Among others `NotFound` where another machine under that name has it now.
    async fn add(
        &self,
        machine: &MachineId,
        config: AccessConfig,
        operation: Uuid,
        step: &str,
        gate: &dyn Gate,
    ) -> Result<(), CloudError> {
        let place = translate::place(ADD, &machine.place)?;
        let add = self
            .instances
            .add_access_config()
            .set_project(&place.account)
            .set_zone(&place.zone)
            .set_instance(&place.machine)
            .set_network_interface(PRIMARY)
            .set_request_id(request_id(operation, step))
            .set_body(config)
            .with_retry_policy(NeverRetry);
        let target = self.change(ADD, place, gate, add.send()).await?;
        if is_of(machine, target) { Ok(()) } else { Err(errors::another_life(ADD, machine)) }
    }

    /// The closing read, repeated for a few seconds while it does not show what is expected. Says whether it did.
    async fn look(
        &self,
        scope: &Scope,
        address: IpAddr,
        expected: impl Fn(&Holder) -> bool,
    ) -> Result<(bool, Verified), CloudError> {
        let mut last = None;
        for pause in LOOKS {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let began = Instant::now();
            let holder = match self.reserved(scope, address).await? {
                Some(reservation) => reservation.holder,
                None => Holder::Foreign(format!("no longer reserved in {}", scope.region)),
            };
            let seen = expected(&holder);
            let verified = Verified::sure(began, holder);
            if seen {
                return Ok((true, verified));
            }
            last = Some(verified);
        }
        last.map(|verified| (false, verified)).ok_or_else(|| not_shown(address))
    }
}

/// What the reads allow. Pure.
fn plan(order: &Attach, live: &Live, interface: &Interface, reservation: &Reservation) -> Result<Plan, CloudError> {
    let conflict = |what: String| Err(CloudError::new(ErrorKind::Conflict, ADD, what));
    let address = order.address;
    let here = live.holds(address);
    match &reservation.holder {
        Holder::Machine(holder) if *holder == order.machine.place && here => {
            return Ok(Plan::There);
        }
        Holder::Machine(holder) if *holder == order.machine.place => {
            return conflict(format!("{address} is on another interface of {holder}"));
        }
        Holder::Machine(holder) => return conflict(format!("{address} is held by {holder}")),
        Holder::Foreign(holder) => return conflict(format!("{address} is held by {holder}")),
        // On the interface, and the address does not say so yet: the closing read waits for that.
        Holder::Free if here => return Ok(Plan::There),
        Holder::Free => {}
    }
    match (&live.config, interface) {
        (None, _) | (_, Interface::Empty) => Ok(Plan::Add { displace: None }),
        (Some(_), Interface::Reserved(other)) => {
            conflict(format!("{} already holds the reserved address {other}", order.machine.place))
        }
        (Some(config), Interface::Ephemeral(_)) if order.may_displace_own => {
            Ok(Plan::Add { displace: Some(config.name.clone()) })
        }
        (Some(_), Interface::Ephemeral(_)) => conflict(format!(
            "{} has an external address of its own, which the order does not allow to displace",
            order.machine.place
        )),
    }
}

/// An access config whose name no other attempt shares.
fn access_config(operation: Uuid, tier: Option<&str>) -> AccessConfig {
    let config = AccessConfig::new().set_name(format!("ipac-{}", operation.simple())).set_type(Type::OneToOneNat);
    match tier {
        Some(tier) => config.set_network_tier(NetworkTier::from(tier)),
        None => config,
    }
}

/// One id per step of an attempt (F9).
fn request_id(operation: Uuid, step: &str) -> String {
    Uuid::new_v5(&operation, step.as_bytes()).to_string()
}

/// Whether that is what was changed. An operation that does not say it is believed.
fn is_of(machine: &MachineId, target: Option<u64>) -> bool {
    target.is_none_or(|target| target.to_string() == machine.instance)
}

fn refuses_the_name(error: &CloudError) -> bool {
    error.settled && matches!(error.kind, ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Unsupported)
}

fn out_of_reach(order: &Attach, place: &Place) -> CloudError {
    let Attach { address, scope, machine, .. } = order;
    let why = format!("{address} is of region {}, and {} stands in {}", scope.region, machine.place, place.region);
    CloudError::new(ErrorKind::Invalid, ADD, why)
}

fn not_reserved(order: &Attach) -> CloudError {
    CloudError::new(ErrorKind::NotFound, VERIFY, format!("{} is not reserved in {}", order.address, order.scope))
}

fn not_shown(address: IpAddr) -> CloudError {
    CloudError::new(ErrorKind::Unavailable, VERIFY, format!("the change has ended, but {address} does not show it yet"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cloud::{Closed, Power, Provider, ProviderId, Reach, gcp::translate::Config};

    struct Open;

    impl Gate for Open {
        fn open_for(&self, _: Duration) -> Result<(), Closed> {
            Ok(())
        }
    }

    const ADDRESS: &str = "203.0.113.7";

    fn node(name: &str) -> MachineId {
        format!("gce://prod/us-west1-a/{name}#1").parse().unwrap()
    }

    fn order(may_displace_own: bool) -> Attach {
        Attach {
            scope: Scope {
                provider: Provider::Gcp,
                account: "prod".to_owned(),
                region: "us-west1".to_owned(),
                resource_group: None,
            },
            address: ADDRESS.parse().unwrap(),
            machine: node("node-1"),
            operation: Uuid::from_u128(7),
            may_displace_own,
            gate: Arc::new(Open),
        }
    }

    fn live(ip: Option<&str>) -> Live {
        Live {
            machine: node("node-1"),
            power: Power::Running,
            config: ip.map(|ip| Config {
                name: "External NAT".to_owned(),
                ip: Some(ip.parse().unwrap()),
                own: Own::default(),
            }),
        }
    }

    fn reserved(holder: Holder) -> Reservation {
        Reservation {
            holder,
            name: "sip-1".to_owned(),
            network_tier: Some("STANDARD".to_owned()),
            reach: Reach::default(),
            tags: Default::default(),
        }
    }

    fn on(name: &str) -> Holder {
        Holder::Machine(node(name).place)
    }

    #[track_caller]
    fn conflict(plan: Result<Plan, CloudError>) {
        assert_eq!(plan.unwrap_err().kind, ErrorKind::Conflict);
    }

    #[test]
    fn what_is_there_needs_nothing() {
        let there = live(Some(ADDRESS));
        let interface = Interface::Reserved(ADDRESS.parse().unwrap());
        for holder in [on("node-1"), Holder::Free] {
            assert_eq!(plan(&order(false), &there, &interface, &reserved(holder)).unwrap(), Plan::There);
        }
    }

    #[test]
    fn an_empty_interface_is_filled_and_an_own_address_goes_only_if_allowed() {
        let own = Interface::Ephemeral(Own::default());
        let with_own = live(Some("198.51.100.4"));
        assert_eq!(
            plan(&order(false), &live(None), &Interface::Empty, &reserved(Holder::Free)).unwrap(),
            Plan::Add { displace: None }
        );
        assert_eq!(
            plan(&order(true), &with_own, &own, &reserved(Holder::Free)).unwrap(),
            Plan::Add { displace: Some("External NAT".to_owned()) }
        );
        conflict(plan(&order(false), &with_own, &own, &reserved(Holder::Free)));
    }

    #[test]
    fn nothing_is_stolen() {
        let own = Interface::Ephemeral(Own::default());
        let other = Interface::Reserved("203.0.113.8".parse().unwrap());
        for holder in [on("node-2"), on("node-1"), Holder::Foreign("a router".to_owned())] {
            conflict(plan(&order(true), &live(None), &Interface::Empty, &reserved(holder.clone())));
            conflict(plan(&order(true), &live(Some("198.51.100.4")), &own, &reserved(holder)));
        }
        conflict(plan(&order(true), &live(Some("203.0.113.8")), &other, &reserved(Holder::Free)));
    }

    #[test]
    fn each_attempt_has_a_config_name_and_each_step_a_request_id_of_its_own() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let name = |operation| access_config(operation, None).name.unwrap();
        assert_ne!(name(one), name(two));
        // The cloud's rule for names: lower case, begins with a letter, at most 63.
        assert!(name(one).starts_with("ipac-") && name(one).len() <= 63);
        assert_eq!(request_id(one, "add"), request_id(one, "add"));
        assert_ne!(request_id(one, "add"), request_id(one, "delete External NAT"));
        assert_ne!(request_id(one, "add"), request_id(two, "add"));
    }

    #[test]
    fn a_change_is_of_the_machine_whose_number_it_tells() {
        let meant = node("node-1");
        assert!(is_of(&meant, Some(1)) && !is_of(&meant, Some(2)));
        assert!(is_of(&meant, None), "it does not say");
    }

    #[test]
    fn the_tier_is_copied() {
        let tier = |tier| access_config(Uuid::from_u128(1), tier).network_tier;
        assert_eq!(tier(Some("STANDARD")), Some(NetworkTier::Standard));
        assert_eq!(tier(Some("PREMIUM")), Some(NetworkTier::Premium));
        assert_eq!(tier(None), None);
    }

    #[test]
    fn a_machine_of_another_cloud_is_not_touched() {
        assert!(translate::place(ADD, &ProviderId::new("azure:///subscriptions/x")).is_err());
    }
}
