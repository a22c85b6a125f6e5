//! What a cloud holds: reserved addresses, machines, and what sits on a machine's primary interface.
//!
//! Pure data and pure changes: no clock, no waiting, no wire. Knows no provider's words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::Refusal;

/// The region of addresses that belong to no region.
pub const GLOBAL: &str = "global";

/// Quality of an external address; machine and reservation must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tier {
    #[default]
    Premium,
    Standard,
}

impl Tier {
    /// `PREMIUM` or `STANDARD`.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Premium => "PREMIUM",
            Tier::Standard => "STANDARD",
        }
    }

    /// The tier of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Tier::Premium, Tier::Standard].into_iter().find(|tier| tier.as_str() == text)
    }
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Starting,
    Running,
    Stopping,
    Stopped,
    Suspended,
    Repairing,
}

impl Power {
    /// A stopped machine keeps a reserved address but gives its ephemeral one back.
    fn keeps_ephemeral(self) -> bool {
        match self {
            Power::Starting | Power::Running | Power::Stopping | Power::Repairing => true,
            Power::Stopped | Power::Suspended => false,
        }
    }
}

/// A reserved address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub account: String,
    /// Region, or [`GLOBAL`].
    pub region: String,
    pub name: String,
    pub ip: IpAddr,
    pub tier: Tier,
    /// Labels or tags, in the cloud's word.
    pub tags: BTreeMap<String, String>,
    /// An address inside the network: reserved too, but nothing for the internet.
    pub internal: bool,
    /// The part of the region in which alone it works; `None` is the region at large.
    pub group: Option<String>,
    /// Something that is no machine and holds the address, for example `forwardingRules/web`.
    pub foreign: Option<String>,
    /// Zones that it was reserved in, spelled as those of machines; empty is none in particular.
    pub zones: BTreeSet<String>,
    /// The cloud's own number; given when the address is added.
    pub id: u64,
}

impl Address {
    /// A free external address of the premium tier.
    pub fn new(account: &str, region: &str, name: &str, ip: IpAddr) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            name: name.to_owned(),
            ip,
            tier: Tier::Premium,
            tags: BTreeMap::new(),
            internal: false,
            group: None,
            foreign: None,
            zones: BTreeSet::new(),
            id: 0,
        }
    }

    /// With this tier.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// With this label or tag.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Works in this part of the region alone.
    #[must_use]
    pub fn of_group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// Reserved in these zones.
    #[must_use]
    pub fn zones(mut self, zones: &[&str]) -> Self {
        self.zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        self
    }

    /// Held by something that is no machine.
    #[must_use]
    pub fn held_by(mut self, foreign: &str) -> Self {
        self.foreign = Some(foreign.to_owned());
        self
    }

    /// Inside the network.
    #[must_use]
    pub fn internal(mut self) -> Self {
        self.internal = true;
        self
    }
}

/// Where a machine stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineKey {
    pub account: String,
    pub zone: String,
    pub name: String,
}

impl MachineKey {
    /// Key of the machine of that name.
    pub fn new(account: &str, zone: &str, name: &str) -> Self {
        Self { account: account.to_owned(), zone: zone.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.account, self.zone, self.name)
    }
}

/// The external side of a primary interface: at most one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Name of the configuration, free text.
    pub config: String,
    /// `None`: an ephemeral one while the machine is stopped.
    pub ip: Option<IpAddr>,
    pub reserved: bool,
    pub tier: Tier,
    /// PTR record of the address.
    pub ptr: Option<String>,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub key: MachineKey,
    pub region: String,
    /// The cloud's own number; a replacement of the same name has another.
    pub id: u64,
    pub power: Power,
    pub external: Option<External>,
    /// How many interfaces it has; only the first one has an external side here.
    pub interfaces: usize,
    /// It was started with an external address of its own.
    pub had_own: bool,
    /// A service of the cloud manages it, and nobody else may change it.
    pub managed: bool,
    pub internal_ip: IpAddr,
    /// Changes with every change of the interface.
    pub generation: u64,
    /// The machine itself is gone, and this is the interface that it has left behind.
    pub left_behind: bool,
}

/// A machine to be added; see [`super::World::add_machine`].
#[derive(Clone, Debug)]
pub struct NewMachine {
    pub account: String,
    pub region: String,
    pub zone: String,
    pub name: String,
    /// Configuration of its own ephemeral address; `None` is a machine without a way from outside.
    pub ephemeral: Option<(String, Tier, Option<String>)>,
    pub interfaces: usize,
    pub managed: bool,
}

impl NewMachine {
    /// A running machine with an ephemeral address of the premium tier, configured as `external-nat`.
    pub fn new(account: &str, region: &str, zone: &str, name: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            zone: zone.to_owned(),
            name: name.to_owned(),
            ephemeral: Some(("external-nat".to_owned(), Tier::Premium, None)),
            interfaces: 1,
            managed: false,
        }
    }

    /// Managed by a service of the cloud.
    #[must_use]
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    /// With so many interfaces.
    #[must_use]
    pub fn interfaces(mut self, count: usize) -> Self {
        self.interfaces = count;
        self
    }

    /// Without an external address.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.ephemeral = None;
        self
    }

    /// With an ephemeral address configured like this.
    #[must_use]
    pub fn ephemeral(mut self, config: &str, tier: Tier, ptr: Option<&str>) -> Self {
        self.ephemeral = Some((config.to_owned(), tier, ptr.map(str::to_owned)));
        self
    }
}

/// A change of a machine's primary interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Put a reserved address on it, or an ephemeral one where `ip` is `None`. What sits there goes with `displace`,
    /// and without it the change is refused.
    Attach { machine: MachineKey, config: String, ip: Option<IpAddr>, tier: Tier, ptr: Option<String>, displace: bool },
    /// Put a reserved address on it, from wherever it is and instead of what sits there.
    Take { machine: MachineKey, config: String, ip: IpAddr },
    /// Take off what the configuration of this name holds.
    Detach { machine: MachineKey, config: String },
}

impl Change {
    /// The machine whose interface changes.
    pub fn machine(&self) -> &MachineKey {
        match self {
            Change::Attach { machine, .. } | Change::Take { machine, .. } | Change::Detach { machine, .. } => machine,
        }
    }
}

/// What a change of an interface did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Attached { external: External, displaced: Option<External> },
    Detached(External),
}

/// Who holds a reserved address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    Machine(MachineKey),
    Foreign(String),
}

/// Everything that the accounts hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Regions and zones by account; kept when the last thing in them goes.
    places: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    addresses: BTreeMap<IpAddr, Address>,
    machines: BTreeMap<MachineKey, Machine>,
    numbers: u64,
}

impl Inventory {
    /// Whether the account exists.
    pub fn has_account(&self, account: &str) -> bool {
        self.places.contains_key(account)
    }

    /// The account that has this region, where only one does.
    pub fn account_of(&self, region: &str) -> Option<&str> {
        self.places.iter().find(|(_, regions)| regions.contains_key(region)).map(|(account, _)| account.as_str())
    }

    /// The account's regions.
    pub fn regions(&self, account: &str) -> Vec<&str> {
        self.places.get(account).map(|regions| regions.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Whether the account has this zone.
    pub fn has_zone(&self, account: &str, zone: &str) -> bool {
        self.places.get(account).is_some_and(|regions| regions.values().any(|zones| zones.contains(zone)))
    }

    /// Makes a place known.
    pub fn add_place(&mut self, account: &str, region: &str, zone: Option<&str>) {
        let regions = self.places.entry(account.to_owned()).or_default();
        if region != GLOBAL {
            regions.entry(region.to_owned()).or_default().extend(zone.map(str::to_owned));
        }
    }

    /// The account's reserved addresses in the order of region and name, each with its holder.
    pub fn addresses(&self, account: &str) -> Vec<(&Address, Holder)> {
        let seats: BTreeMap<IpAddr, &MachineKey> = self
            .machines
            .values()
            .filter_map(|machine| {
                let external = machine.external.as_ref().filter(|external| external.reserved)?;
                Some((external.ip?, &machine.key))
            })
            .collect();
        let mut found: Vec<_> = self
            .addresses
            .values()
            .filter(|address| address.account == account)
            .map(|address| {
                let holder = match (&address.foreign, seats.get(&address.ip)) {
                    (Some(foreign), _) => Holder::Foreign(foreign.clone()),
                    (None, Some(machine)) => Holder::Machine((*machine).clone()),
                    (None, None) => Holder::Nobody,
                };
                (address, holder)
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| (&a.region, &a.name).cmp(&(&b.region, &b.name)));
        found
    }

    /// One reserved address.
    pub fn address(&self, ip: IpAddr) -> Option<&Address> {
        self.addresses.get(&ip)
    }

    /// Who holds a reserved address; `None` when it is not reserved.
    pub fn holder(&self, ip: IpAddr) -> Option<Holder> {
        let address = self.addresses.get(&ip)?;
        if let Some(foreign) = &address.foreign {
            return Some(Holder::Foreign(foreign.clone()));
        }
        let holds = |machine: &&Machine| {
            machine.external.as_ref().is_some_and(|external| external.reserved && external.ip == Some(ip))
        };
        let machine = self.machines.values().find(holds).map(|machine| machine.key.clone());
        Some(machine.map_or(Holder::Nobody, Holder::Machine))
    }

    /// One machine.
    pub fn machine(&self, key: &MachineKey) -> Option<&Machine> {
        self.machines.get(key)
    }

    /// Every machine, in the order of account, zone and name.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// Reserves an address.
    pub fn add_address(&mut self, mut address: Address) {
        self.add_place(&address.account, &address.region, None);
        address.id = self.number();
        self.addresses.insert(address.ip, address);
    }

    /// Takes a reservation away, whoever holds it.
    pub fn remove_address(&mut self, ip: IpAddr) -> Option<Address> {
        self.addresses.remove(&ip)
    }

    /// Changes one reservation in place.
    pub fn address_mut(&mut self, ip: IpAddr) -> Option<&mut Address> {
        self.addresses.get_mut(&ip)
    }

    /// Starts a machine. One that has the same place is gone with it.
    pub fn add_machine(&mut self, new: NewMachine) -> MachineKey {
        self.add_place(&new.account, &new.region, Some(&new.zone));
        let key = MachineKey { account: new.account, zone: new.zone, name: new.name };
        self.machines.remove(&key);
        let had_own = new.ephemeral.is_some();
        let external = new.ephemeral.map(|(config, tier, ptr)| External {
            config,
            ip: Some(self.ephemeral_ip()),
            reserved: false,
            tier,
            ptr,
        });
        let number = self.numbers;
        let machine = Machine {
            key: key.clone(),
            region: new.region,
            id: self.number(),
            power: Power::Running,
            external,
            interfaces: new.interfaces,
            had_own,
            managed: new.managed,
            // 10.0.0.0/8 from 10.1.0.1 on: unique enough for a test network.
            internal_ip: Ipv4Addr::from_bits(0x0a01_0001_u32.wrapping_add(u32::try_from(number).unwrap_or(0))).into(),
            generation: 1,
            left_behind: false,
        };
        self.machines.insert(key.clone(), machine);
        key
    }

    /// Takes a machine away; its ephemeral address goes back to the pool, a reserved one becomes free.
    pub fn remove_machine(&mut self, key: &MachineKey) -> Option<Machine> {
        self.machines.remove(key)
    }

    /// One machine, to be changed in place.
    pub(super) fn machine_mut(&mut self, key: &MachineKey) -> Option<&mut Machine> {
        self.machines.get_mut(key)
    }

    /// Switches a machine. Its ephemeral address goes while it is stopped, and another comes when it starts.
    pub fn switch(&mut self, key: &MachineKey, power: Power) {
        let fresh = self.ephemeral_ip();
        let Some(machine) = self.machines.get_mut(key) else {
            return;
        };
        machine.power = power;
        if let Some(external) = machine.external.as_mut().filter(|external| !external.reserved) {
            external.ip = power.keeps_ephemeral().then(|| external.ip.unwrap_or(fresh));
        }
    }

    /// Whether the cloud takes the order for the change; it may still fail when it is carried out.
    ///
    /// # Errors
    /// What the cloud says at once. Who holds the address is not looked at here: that is found out when the change
    /// is carried out.
    pub fn accepts(&self, change: &Change) -> Result<(), Refusal> {
        let machine = self.machine_or_refusal(change.machine())?;
        match change {
            Change::Attach { ip, tier, displace, .. } => {
                if machine.external.is_some() && !displace {
                    return Err(Refusal::SeatTaken);
                }
                let Some(ip) = *ip else { return Ok(()) };
                let address = self
                    .addresses
                    .get(&ip)
                    .filter(|address| {
                        address.account == machine.key.account && address.region == machine.region && !address.internal
                    })
                    .ok_or_else(|| Refusal::AddressNotInRegion { ip, region: machine.region.clone() })?;
                if address.tier != *tier {
                    return Err(Refusal::TierMismatch { address: address.tier, wanted: *tier });
                }
                Ok(())
            }
            Change::Take { .. } => self.accepts(&self.put(change)),
            Change::Detach { config, .. } => match &machine.external {
                Some(external) if external.config == *config => Ok(()),
                _ => Err(Refusal::NoSuchConfig { config: config.clone() }),
            },
        }
    }

    /// Carries the change out, whole or not at all.
    ///
    /// # Errors
    /// As [`Inventory::accepts`], and [`Refusal::InUse`].
    pub fn apply(&mut self, change: &Change) -> Result<Done, Refusal> {
        self.accepts(change)?;
        let done = match change {
            // Whoever held it has let go by now.
            Change::Take { .. } => return self.apply(&self.put(change)),
            Change::Attach { machine, config, ip, tier, ptr, .. } => {
                let target = self.machine_or_refusal(machine)?;
                let (running, displaced) = (target.power.keeps_ephemeral(), target.external.clone());
                if let Some(ip) = *ip {
                    match self.holder(ip) {
                        None | Some(Holder::Nobody) => {}
                        Some(Holder::Machine(by)) => {
                            return Err(Refusal::InUse { ip, by: by.name });
                        }
                        Some(Holder::Foreign(by)) => return Err(Refusal::InUse { ip, by }),
                    }
                }
                let external = External {
                    config: config.clone(),
                    ip: ip.or_else(|| running.then(|| self.ephemeral_ip())),
                    reserved: ip.is_some(),
                    tier: *tier,
                    ptr: ptr.clone(),
                };
                Done::Attached { external, displaced }
            }
            Change::Detach { machine, config } => match self.machine_or_refusal(machine)?.external.clone() {
                Some(external) => Done::Detached(external),
                None => {
                    return Err(Refusal::NoSuchConfig { config: config.clone() });
                }
            },
        };
        if let Some(machine) = self.machines.get_mut(change.machine()) {
            machine.generation = machine.generation.wrapping_add(1);
            machine.external = match &done {
                Done::Attached { external, .. } => Some(external.clone()),
                Done::Detached(_) => None,
            };
        }
        Ok(done)
    }

    /// What is wrong with the state as it is: an address in two places. Empty is well.
    pub fn faults(&self) -> Vec<String> {
        let mut seen: BTreeMap<IpAddr, &MachineKey> = BTreeMap::new();
        let mut wrong = Vec::new();
        for machine in self.machines.values() {
            let Some(external) = &machine.external else {
                continue;
            };
            let Some(ip) = external.ip else { continue };
            if let Some(other) = seen.insert(ip, &machine.key) {
                wrong.push(format!("{ip} sits on {other} and on {}", machine.key));
            }
            if let Some(foreign) = self.addresses.get(&ip).and_then(|address| address.foreign.as_ref()) {
                wrong.push(format!("{ip} sits on {} and is held by {foreign}", machine.key));
            }
        }
        wrong
    }

    /// What is left of a taking once the address is free.
    fn put(&self, change: &Change) -> Change {
        match change {
            Change::Take { machine, config, ip } => Change::Attach {
                machine: machine.clone(),
                config: config.clone(),
                ip: Some(*ip),
                tier: self.addresses.get(ip).map(|address| address.tier).unwrap_or_default(),
                ptr: None,
                displace: true,
            },
            Change::Attach { .. } | Change::Detach { .. } => change.clone(),
        }
    }

    fn machine_or_refusal(&self, key: &MachineKey) -> Result<&Machine, Refusal> {
        self.machines.get(key).ok_or_else(|| Refusal::NoSuchMachine(key.clone()))
    }

    /// A number in the style of the clouds: long, and never used twice.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(1);
        1_000_000_000_000_000_000_u64.wrapping_add(self.numbers.wrapping_mul(7_777_777_777_777))
    }

    /// The next address of the pool (198.18.0.0/15, kept for test networks): one given back is not had again soon.
    fn ephemeral_ip(&mut self) -> IpAddr {
        self.numbers = self.numbers.wrapping_add(1);
        let offset = u32::try_from(self.numbers % 0x1_fffe).unwrap_or(0);
        Ipv4Addr::from_bits(0xc612_0000_u32.wrapping_add(offset).wrapping_add(1)).into()
    }
}
