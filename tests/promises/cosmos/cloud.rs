//! The truth of a cloud, as small as the promises allow, with what the interface of each of the three does.
//!
//! | cloud | a change names | what bites |
//! |---|---|---|
//! | Google Cloud | the machine's name, and the access config by its name | a swap is two requests; the name of a machine, and of a config that somebody else named, can come back |
//! | AWS | the address, or the association by its id | what is on the interface already is displaced without a word; what is shown lags behind |
//! | Azure | the interface as it was read, by its etag | a write replaces whatever is there; a deleted machine may leave its interface, address and all |
//!
//! Mirrors what `src/cloud/{gcp,aws,azure}/swap.rs` rely on and `reference/cloud-apis.md` lists. A request is a message:
//! it is sent, and lands later or never; landing is when the cloud looks at it and acts. Left out: network tiers, reach,
//! tags, other regions (they play no part in the promises), and that a stopped machine's own address is another one after
//! its next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use ip_address_controller::cloud::{
    CloudError, ErrorKind, Holder, Interface, MachineId, Own, Power, Provider, ProviderId, Reach, Reservation, Scope,
    Seat, Survey, Whereabouts,
};
use uuid::Uuid;

use crate::canon::Canon;

/// What a cloud compares when it is asked for a change: the name of an access config (Google Cloud), the id of an
/// association (AWS), the etag of an interface (Azure).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Used once: made by the cloud, or by us from the id of an operation (F7).
    Made(Uuid),
    /// A name that people and tools give, again and again.
    Named(&'static str),
}

/// The name that Google Cloud's own tools give to an access config.
pub const THEIRS: Mark = Mark::Named("external-nat");

/// What the primary interface of a machine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Empty,
    /// An address of the machine's own, which goes when it is taken off.
    Own,
    Reserved(IpAddr),
}

/// One life of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cloud's own id: another one when it is replaced under the same name.
    pub instance: String,
    pub power: Power,
    /// `false`: it is gone. What its interface holds then is what it has left behind (Azure).
    pub exists: bool,
    pub slot: Slot,
    pub mark: Mark,
    /// It had an address of its own before us (P10).
    pub had_own: bool,
}

impl Machine {
    fn id(&self, place: &ProviderId) -> MachineId {
        MachineId { place: place.clone(), instance: self.instance.clone() }
    }
}

/// A request that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `instances.deleteAccessConfig`.
    DeleteConfig { machine: ProviderId, name: Mark },
    /// `instances.addAccessConfig`; without address for one of the machine's own.
    AddConfig { machine: ProviderId, name: Mark, ip: Option<IpAddr> },
    /// `AssociateAddress`. With `reassociate` it is taken from whoever has it.
    Associate { machine: ProviderId, ip: IpAddr, reassociate: bool },
    /// `DisassociateAddress`.
    Disassociate { association: Mark },
    /// `ModifyNetworkInterfaceAttribute`, AssociatePublicIpAddress.
    GiveOwn { machine: ProviderId },
    /// `networkInterfaces.createOrUpdate`. Without etag it is written whatever was changed since it was read.
    PutInterface { machine: ProviderId, etag: Option<Mark>, set: Option<IpAddr> },
}

impl Order {
    /// The cloud's name of the call.
    pub fn call(&self) -> &'static str {
        match self {
            Order::DeleteConfig { .. } => "instances.deleteAccessConfig",
            Order::AddConfig { .. } => "instances.addAccessConfig",
            Order::Associate { .. } => "AssociateAddress",
            Order::Disassociate { .. } => "DisassociateAddress",
            Order::GiveOwn { .. } => "ModifyNetworkInterfaceAttribute",
            Order::PutInterface { .. } => "networkInterfaces.createOrUpdate",
        }
    }

    /// The machine that it names.
    pub fn machine(&self) -> Option<&ProviderId> {
        match self {
            Order::DeleteConfig { machine, .. }
            | Order::AddConfig { machine, .. }
            | Order::Associate { machine, .. }
            | Order::GiveOwn { machine }
            | Order::PutInterface { machine, .. } => Some(machine),
            Order::Disassociate { .. } => None,
        }
    }

    /// Takes an address off and puts none on.
    pub fn cuts(&self) -> bool {
        matches!(self, Order::DeleteConfig { .. } | Order::Disassociate { .. } | Order::PutInterface { set: None, .. })
    }
}

/// Who has sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    pub process: u8,
    pub effect: u64,
}

/// What is known of a request beside what it says.
#[derive(Clone, Debug)]
pub struct Meta {
    pub sender: Sender,
    pub operation: Uuid,
    /// The address that it is about; `None` when it gives back an address of the machine's own.
    pub address: Option<IpAddr>,
    /// It lands until then, or never (F5).
    pub latest: Instant,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub order: Order,
    pub meta: Meta,
}

/// The smallest number that is free: two runs into one state give the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u16);

/// A machine, and what came off its interface or onto it.
pub type Moved = Option<(ProviderId, Slot)>;

/// What a request did when it landed.
#[derive(Clone, Debug)]
pub struct Landed {
    pub request: Request,
    /// Refused for sure otherwise: nothing was changed.
    pub result: Result<Told, CloudError>,
    pub removed: Moved,
    pub put: Moved,
}

/// What the cloud tells with a change that has ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Nothing,
    /// The association that was made (AWS).
    Association(Mark),
    /// The machine whose it was by then, known by its name (Google Cloud's `targetId`).
    Machine(MachineId),
}

/// A machine read live, with what a change of it must name.
#[derive(Clone, Debug)]
pub struct Live {
    pub seat: Seat,
    /// Of the access config or interface; on AWS of what it has, lent or reserved.
    pub mark: Mark,
    /// It has others beside the primary one.
    pub several_interfaces: bool,
}

/// What an address is on: AWS tells the association with it, Azure the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub place: ProviderId,
    pub instance: String,
    pub mark: Mark,
    /// The machine is gone and has left its interface behind.
    pub left_behind: bool,
}

/// The answer to a call by id.
#[derive(Clone, Debug)]
pub struct Found {
    pub whereabouts: Whereabouts,
    pub mount: Option<Mount>,
}

/// When AWS gives a machine with one interface an address of its own again, after a reserved one has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnReturns {
    AtOnce,
    /// Within minutes: [`Cloud::own_returns`].
    Later,
    /// Never by itself: it has several interfaces.
    WhenAsked,
}

#[derive(Clone, Debug, Default)]
struct Truth {
    machines: BTreeMap<ProviderId, Machine>,
    reserved: BTreeSet<IpAddr>,
    /// Held by something that is no machine: a load balancer, say.
    foreign: BTreeSet<IpAddr>,
}

/// See the module.
#[derive(Clone)]
pub struct Cloud {
    kind: Provider,
    truth: Arc<Truth>,
    shown: Arc<Truth>,
    /// What is shown stays as it is until [`Cloud::catch_up`] (AWS alone).
    pub lagging: bool,
    pub returns: OwnReturns,
    /// Shared by the states that a search keeps.
    requests: BTreeMap<RequestId, Arc<Request>>,
    made: u64,
}

/// Without the counter: what it makes is told apart by being different, not by its value.
impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Cloud");
        text.field("truth", &self.truth).field("requests", &self.requests).field("lagging", &self.lagging);
        if !Arc::ptr_eq(&self.truth, &self.shown) {
            text.field("shown", &self.shown);
        }
        text.finish()
    }
}

const REGION: &str = "us-west1";

/// Where the machine of that name stands, as its Node says.
pub fn place(kind: Provider, name: &str) -> ProviderId {
    ProviderId::new(match kind {
        Provider::Gcp => format!("gce://prod/{REGION}-a/{name}"),
        Provider::Aws => {
            let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("aws:///us-west-1a/i-{hex}")
        }
        Provider::Azure => format!(
            "azure:///subscriptions/0a1b/resourceGroups/nodes/providers/Microsoft.Compute/virtualMachines/{name}"
        ),
    })
}

fn refused<T>(kind: ErrorKind, call: &'static str, why: impl Into<String>) -> Result<T, CloudError> {
    Err(CloudError::new(kind, call, why))
}

impl Cloud {
    pub fn new(kind: Provider) -> Self {
        let truth = Arc::<Truth>::default();
        Self {
            kind,
            shown: truth.clone(),
            truth,
            lagging: false,
            returns: OwnReturns::AtOnce,
            requests: BTreeMap::new(),
            made: 0,
        }
    }

    /// For the fingerprint of a state. `waited_for`: whether somebody waits for the answer to a request. Its number does not count.
    pub fn canon(&self, canon: &mut Canon, waited_for: impl Fn(RequestId) -> bool) {
        canon.shared(&self.truth);
        canon.write(&(self.lagging, self.is_behind()));
        if self.is_behind() {
            canon.shared(&self.shown);
        }
        canon.set(self.requests.iter().map(|(id, request)| {
            let Request { order, meta: Meta { sender, operation, address, latest } } = &**request;
            let waits = waited_for(*id);
            format!("{} {waits} {order:?} {operation} {address:?} {latest:?}", sender.process)
        }));
    }

    pub fn kind(&self) -> Provider {
        self.kind
    }

    /// The scope of its addresses.
    pub fn scope(&self) -> Scope {
        let (account, region) = match self.kind {
            Provider::Gcp => ("prod", REGION),
            Provider::Aws => ("", "us-west-1"),
            Provider::Azure => ("0a1b", "westeurope"),
        };
        Scope { provider: self.kind, account: account.to_owned(), region: region.to_owned(), resource_group: None }
    }

    /// The labels that the cloud's controller puts on the Node of a machine.
    pub fn node_labels(&self) -> BTreeMap<String, String> {
        let Scope { region, .. } = self.scope();
        let zone = match self.kind {
            Provider::Gcp => format!("{region}-a"),
            Provider::Aws => format!("{region}a"),
            Provider::Azure => format!("{region}-1"),
        };
        BTreeMap::from([
            ("topology.kubernetes.io/region".to_owned(), region),
            ("topology.kubernetes.io/zone".to_owned(), zone),
        ])
    }

    fn change(&mut self) -> &mut Truth {
        Arc::make_mut(&mut self.truth)
    }

    /// What is shown follows the truth.
    pub fn catch_up(&mut self) {
        self.shown = self.truth.clone();
    }

    pub fn is_behind(&self) -> bool {
        !Arc::ptr_eq(&self.truth, &self.shown)
    }

    fn changed(&mut self) {
        // A mark that nothing can be asked for by is forgotten: two ways into one state look the same.
        let kind = self.kind;
        for machine in self.change().machines.values_mut() {
            let counts = match kind {
                Provider::Gcp | Provider::Aws => machine.slot != Slot::Empty,
                Provider::Azure => machine.exists || machine.slot != Slot::Empty,
            };
            if !counts {
                machine.mark = THEIRS;
            }
        }
        if self.kind != Provider::Aws || !self.lagging {
            self.catch_up();
        }
    }

    fn mark(&mut self) -> Mark {
        self.made += 1;
        Mark::Made(Uuid::from_u128((0xC10D_u128 << 112) | u128::from(self.made)))
    }

    // What people order, and what befalls machines.

    /// `own`: it has an external address of its own.
    pub fn add_machine(&mut self, name: &str, own: bool) -> MachineId {
        let place = place(self.kind, name);
        let id = self.born(place, own && self.kind != Provider::Azure);
        self.changed();
        id
    }

    fn born(&mut self, place: ProviderId, had_own: bool) -> MachineId {
        let mark = if self.kind == Provider::Gcp { THEIRS } else { self.mark() };
        let instance = match self.kind {
            // An EC2 instance is named by its id.
            Provider::Aws => place.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
            Provider::Gcp | Provider::Azure => {
                let lives = self.truth.machines.get(&place).and_then(|old| old.instance.parse().ok()).unwrap_or(0_u32);
                (lives + 1).to_string()
            }
        };
        let slot = if had_own { Slot::Own } else { Slot::Empty };
        let machine = Machine { instance: instance.clone(), power: Power::Running, exists: true, slot, mark, had_own };
        self.change().machines.insert(place.clone(), machine);
        MachineId { place, instance }
    }

    pub fn reserve(&mut self, ip: IpAddr) {
        self.change().reserved.insert(ip);
        self.changed();
    }

    /// Its holder keeps it, as an address that is nobody's reservation.
    pub fn release(&mut self, ip: IpAddr) {
        let truth = self.change();
        truth.reserved.remove(&ip);
        truth.foreign.remove(&ip);
        truth.machines.values_mut().filter(|machine| machine.slot == Slot::Reserved(ip)).for_each(|machine| {
            machine.slot = Slot::Own;
        });
        self.changed();
    }

    pub fn stop(&mut self, place: &ProviderId) {
        self.power(place, Power::Stopped);
    }

    /// AWS gives it an address of its own again where it does so by itself.
    pub fn start(&mut self, place: &ProviderId) {
        self.power(place, Power::Running);
        if self.kind == Provider::Aws && self.returns != OwnReturns::WhenAsked {
            self.own_returns(place);
        }
    }

    pub fn power(&mut self, place: &ProviderId, power: Power) {
        if let Some(machine) = self.change().machines.get_mut(place) {
            machine.power = power;
        }
        self.changed();
    }

    /// The machine is deleted, and its interface with it.
    pub fn vanish(&mut self, place: &ProviderId) {
        if let Some(machine) = self.change().machines.get_mut(place) {
            (machine.exists, machine.slot) = (false, Slot::Empty);
        }
        self.changed();
    }

    /// The machine is deleted, and its interface stays with what is on it (Azure).
    pub fn vanish_without_interface(&mut self, place: &ProviderId) {
        if let Some(machine) = self.change().machines.get_mut(place) {
            machine.exists = false;
        }
        self.changed();
    }

    /// Another machine takes its place, under the same name where the cloud knows machines by name.
    pub fn replace(&mut self, place: &ProviderId) -> MachineId {
        let had_own = self.truth.machines.get(place).is_some_and(|machine| machine.had_own);
        let next = match self.kind {
            Provider::Gcp | Provider::Azure => place.clone(),
            // An EC2 instance is never the same again.
            Provider::Aws => {
                self.vanish(place);
                ProviderId::new(format!("{place}0"))
            }
        };
        let id = self.born(next, had_own);
        self.changed();
        id
    }

    /// Somebody moves an address onto a machine, whatever is there and wherever it was.
    pub fn outsider_attaches(&mut self, ip: IpAddr, place: &ProviderId) {
        self.outsider_detaches(ip);
        let mark = if self.kind == Provider::Gcp { THEIRS } else { self.mark() };
        if let Some(machine) = self.change().machines.get_mut(place).filter(|machine| machine.exists) {
            (machine.slot, machine.mark) = (Slot::Reserved(ip), mark);
        }
        self.changed();
    }

    pub fn outsider_detaches(&mut self, ip: IpAddr) {
        let mark = self.mark();
        self.change().foreign.remove(&ip);
        if let Some(place) = self.on(ip) {
            match self.kind {
                Provider::Aws => self.off(&place),
                Provider::Gcp | Provider::Azure => self.set(&place, Slot::Empty, Some(mark)),
            }
        }
        self.changed();
    }

    /// Somebody puts it on something that is no machine.
    pub fn outsider_takes(&mut self, ip: IpAddr) {
        self.outsider_detaches(ip);
        self.change().foreign.insert(ip);
        self.changed();
    }

    /// A machine's own address comes back by itself ([`OwnReturns::Later`]).
    pub fn own_returns(&mut self, place: &ProviderId) {
        if let Some(machine) = self.change().machines.get_mut(place)
            && machine.exists
            && machine.had_own
            && machine.power == Power::Running
            && machine.slot == Slot::Empty
        {
            machine.slot = Slot::Own;
        }
        self.changed();
    }

    // Requests.

    pub fn send(&mut self, order: Order, meta: Meta) -> RequestId {
        let free = (0..).map(RequestId).find(|id| !self.requests.contains_key(id)).unwrap();
        self.requests.insert(free, Arc::new(Request { order, meta }));
        free
    }

    /// What is under way.
    pub fn requests(&self) -> &BTreeMap<RequestId, Arc<Request>> {
        &self.requests
    }

    /// The cloud never acts on it.
    pub fn lose(&mut self, id: RequestId) -> Option<Request> {
        self.requests.remove(&id).map(Arc::unwrap_or_clone)
    }

    /// What has not landed in its time never will.
    pub fn expire(&mut self, now: Instant) -> Vec<Request> {
        let late: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| request.meta.latest < now).map(|(id, _)| *id).collect();
        late.iter().filter_map(|id| self.lose(*id)).collect()
    }

    /// The cloud looks at it, and acts or refuses.
    pub fn land(&mut self, id: RequestId) -> Landed {
        let request = self.lose(id).expect("a request lands once");
        let (mut removed, mut put) = (None, None);
        let result = self.act(&request.order, &mut removed, &mut put);
        if result.is_ok() {
            self.changed();
        }
        Landed { request, result, removed, put }
    }

    fn act(&mut self, order: &Order, removed: &mut Moved, put: &mut Moved) -> Result<Told, CloudError> {
        let call = order.call();
        match order {
            Order::DeleteConfig { machine, name } => {
                let seat = self.seat(call, machine)?;
                if seat.slot == Slot::Empty || seat.mark != *name {
                    return refused(ErrorKind::Invalid, call, "there is no access config of that name");
                }
                *removed = Some((machine.clone(), seat.slot));
                self.set(machine, Slot::Empty, None);
                Ok(Told::Machine(seat.id(machine)))
            }
            Order::AddConfig { machine, name, ip } => {
                let seat = self.seat(call, machine)?;
                if seat.slot != Slot::Empty {
                    return refused(ErrorKind::Conflict, call, "At most one access config currently supported");
                }
                let slot = self.reserved_slot(call, *ip)?;
                *put = Some((machine.clone(), slot));
                self.set(machine, slot, Some(name.clone()));
                Ok(Told::Machine(seat.id(machine)))
            }
            Order::Associate { machine, ip, reassociate } => {
                let seat = self.seat(call, machine)?;
                if seat.power == Power::Changing {
                    return refused(ErrorKind::Unavailable, call, "the instance is neither running nor stopped");
                }
                if seat.slot == Slot::Reserved(*ip) {
                    return Ok(Told::Association(seat.mark));
                }
                if *reassociate && let Some(place) = self.on(*ip) {
                    *removed = Some((place.clone(), Slot::Reserved(*ip)));
                    self.off(&place);
                }
                let slot = self.reserved_slot(call, Some(*ip))?;
                if seat.slot != Slot::Empty && removed.is_none() {
                    *removed = Some((machine.clone(), seat.slot));
                }
                let association = self.mark();
                *put = Some((machine.clone(), slot));
                self.set(machine, slot, Some(association.clone()));
                Ok(Told::Association(association))
            }
            Order::Disassociate { association } => {
                let held = self
                    .truth
                    .machines
                    .iter()
                    .find(|(_, machine)| matches!(machine.slot, Slot::Reserved(_)) && machine.mark == *association);
                let Some((place, machine)) = held else {
                    return refused(ErrorKind::NotFound, call, "there is no such association");
                };
                let place = place.clone();
                *removed = Some((place.clone(), machine.slot));
                self.off(&place);
                Ok(Told::Nothing)
            }
            Order::GiveOwn { machine } => {
                let seat = self.seat(call, machine)?;
                if self.returns != OwnReturns::WhenAsked {
                    return refused(ErrorKind::Denied, call, "the instance has one interface");
                }
                if seat.slot != Slot::Empty {
                    return refused(ErrorKind::Invalid, call, "the interface has a public address");
                }
                *put = Some((machine.clone(), Slot::Own));
                let lent = self.mark();
                self.set(machine, Slot::Own, Some(lent));
                Ok(Told::Nothing)
            }
            Order::PutInterface { machine, etag, set } => {
                // A machine that is gone may have left its interface behind.
                let seat = match self.truth.machines.get(machine) {
                    Some(seat) if seat.exists || seat.slot != Slot::Empty => seat.clone(),
                    Some(_) | None => return refused(ErrorKind::NotFound, call, "there is no such interface"),
                };
                if etag.as_ref().is_some_and(|etag| *etag != seat.mark) {
                    return refused(ErrorKind::Unavailable, call, "PreconditionFailed: it was changed since");
                }
                let slot = match set {
                    Some(ip) if seat.slot == Slot::Reserved(*ip) => seat.slot,
                    Some(ip) => self.reserved_slot(call, Some(*ip))?,
                    None => Slot::Empty,
                };
                if slot != seat.slot {
                    *removed = (seat.slot != Slot::Empty).then(|| (machine.clone(), seat.slot));
                    *put = (slot != Slot::Empty).then(|| (machine.clone(), slot));
                }
                let etag = self.mark();
                self.set(machine, slot, Some(etag));
                Ok(Told::Nothing)
            }
        }
    }

    fn seat(&self, call: &'static str, place: &ProviderId) -> Result<Machine, CloudError> {
        match self.truth.machines.get(place).filter(|machine| machine.exists) {
            Some(machine) => Ok(machine.clone()),
            None => refused(ErrorKind::NotFound, call, format!("there is no machine {place}")),
        }
    }

    /// An address must be reserved and free to go anywhere.
    fn reserved_slot(&self, call: &'static str, ip: Option<IpAddr>) -> Result<Slot, CloudError> {
        let Some(ip) = ip else { return Ok(Slot::Own) };
        if !self.truth.reserved.contains(&ip) {
            return refused(ErrorKind::Invalid, call, format!("{ip} is not reserved"));
        }
        if self.truth.foreign.contains(&ip) || self.on(ip).is_some() {
            return refused(ErrorKind::Conflict, call, format!("{ip} is in use"));
        }
        Ok(Slot::Reserved(ip))
    }

    fn set(&mut self, place: &ProviderId, slot: Slot, mark: Option<Mark>) {
        if let Some(machine) = self.change().machines.get_mut(place) {
            machine.slot = slot;
            if let Some(mark) = mark {
                machine.mark = mark;
            }
        }
    }

    /// An AWS association ends.
    fn off(&mut self, place: &ProviderId) {
        let returns = self.returns == OwnReturns::AtOnce;
        if let Some(machine) = self.change().machines.get_mut(place) {
            let gets_own = returns && machine.had_own && machine.power != Power::Stopped;
            machine.slot = if gets_own { Slot::Own } else { Slot::Empty };
        }
    }

    // The truth, for those who judge.

    /// Every reserved address.
    pub fn reserved(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.truth.reserved.iter().copied()
    }

    pub fn machine(&self, place: &ProviderId) -> Option<&Machine> {
        self.truth.machines.get(place)
    }

    pub fn machines(&self) -> &BTreeMap<ProviderId, Machine> {
        &self.truth.machines
    }

    /// The machine, gone or not, whose interface has the address.
    pub fn on(&self, ip: IpAddr) -> Option<ProviderId> {
        let mut all = self.truth.machines.iter();
        all.find(|(_, machine)| machine.slot == Slot::Reserved(ip)).map(|(place, _)| place.clone())
    }

    /// Who has the address in truth.
    pub fn holder(&self, ip: IpAddr) -> Holder {
        self.truth.holder(ip)
    }

    // What is shown.

    /// `Cloud::survey`.
    pub fn survey(&self, _: &Scope, began: Instant) -> Survey {
        Survey { began, addresses: self.shown.reservations().collect() }
    }

    /// `Cloud::find`.
    pub fn find(&self, ip: IpAddr) -> Whereabouts {
        match self.shown.reserved.contains(&ip) {
            true => Whereabouts::Here(self.shown.reservation(ip)),
            false => Whereabouts::NotFound,
        }
    }

    /// The same, with what a change must name.
    pub fn found(&self, ip: IpAddr) -> Found {
        let mut all = self.shown.machines.iter();
        let mount = all.find(|(_, machine)| machine.slot == Slot::Reserved(ip)).map(|(place, machine)| Mount {
            place: place.clone(),
            instance: machine.instance.clone(),
            mark: machine.mark.clone(),
            left_behind: !machine.exists,
        });
        Found { whereabouts: self.find(ip), mount }
    }

    /// `Cloud::inspect`.
    pub fn inspect(&self, place: &ProviderId) -> Result<Seat, CloudError> {
        self.live(place).map(|live| live.seat)
    }

    /// The same, with what a change must name.
    pub fn live(&self, place: &ProviderId) -> Result<Live, CloudError> {
        let Some(machine) = self.shown.machines.get(place).filter(|machine| machine.exists) else {
            return refused(ErrorKind::NotFound, "inspect", format!("there is no machine {place}"));
        };
        let interface = match machine.slot {
            Slot::Empty => Interface::Empty,
            Slot::Own => Interface::Ephemeral(Own::default()),
            Slot::Reserved(ip) => Interface::Reserved(ip),
        };
        let id = machine.id(place);
        Ok(Live {
            seat: Seat { machine: id, power: machine.power, interface },
            mark: machine.mark.clone(),
            several_interfaces: self.returns == OwnReturns::WhenAsked,
        })
    }
}

impl Truth {
    fn holder(&self, ip: IpAddr) -> Holder {
        self.holder_on(ip, self.machines.iter().find(|(_, machine)| machine.slot == Slot::Reserved(ip)))
    }

    /// `on`: the machine, gone or not, whose interface has the address.
    fn holder_on(&self, ip: IpAddr, on: Option<(&ProviderId, &Machine)>) -> Holder {
        if self.foreign.contains(&ip) {
            return Holder::Foreign("forwarding rule web".to_owned());
        }
        match on {
            Some((place, machine)) if machine.exists => Holder::Machine(place.clone()),
            Some(_) => Holder::Foreign("a network interface of no machine".to_owned()),
            None => Holder::Free,
        }
    }

    fn reservation(&self, ip: IpAddr) -> Reservation {
        reservation(ip, self.holder(ip))
    }

    /// All of them. The machines are gone through once, not once for each address.
    fn reservations(&self) -> impl Iterator<Item = (IpAddr, Reservation)> + '_ {
        let on = self.machines.iter().filter_map(|(place, machine)| match machine.slot {
            Slot::Reserved(ip) => Some((ip, (place, machine))),
            Slot::Empty | Slot::Own => None,
        });
        let on: BTreeMap<IpAddr, (&ProviderId, &Machine)> = on.collect();
        self.reserved.iter().map(move |ip| (*ip, reservation(*ip, self.holder_on(*ip, on.get(ip).copied()))))
    }
}

fn reservation(ip: IpAddr, holder: Holder) -> Reservation {
    Reservation { holder, name: format!("sip-{ip}"), network_tier: None, reach: Reach::Region, tags: BTreeMap::new() }
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
mod tests;
