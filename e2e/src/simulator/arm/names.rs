//! How Azure spells the world's things. Each service has its own case for one id, and so have these.

use uuid::Uuid;

use crate::world::{Address, Machine, MachineKey};

/// Resource group of the addresses, as asked for.
pub(super) const ADDRESSES: &str = "addresses";
/// Resource group of machines and interfaces, as asked for.
pub(super) const NODES: &str = "mc_nodes";

/// A Node's `spec.providerID`: with the resource group in lower case, as the cloud provider writes it.
pub fn provider_id(machine: &MachineKey) -> String {
    format!("azure://{}", machine_id(machine, NODES))
}

/// `vmId`: one life of a machine.
pub fn vm_id(machine: &Machine) -> String {
    Uuid::from_u64_pair(machine.id, 0x8000_0000_0000_0000 | machine.id).to_string()
}

/// Id of a machine's interface, as the machine spells it.
pub fn interface_id(machine: &MachineKey) -> String {
    network(&machine.account, "MC_Nodes", "networkInterfaces", &interface_name(&machine.name))
}

pub(super) fn interface_name(machine: &str) -> String {
    format!("{machine}-nic")
}

pub(super) fn machine_id(machine: &MachineKey, group: &str) -> String {
    let MachineKey { account, name, .. } = machine;
    format!("/subscriptions/{account}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}")
}

pub(super) fn network(account: &str, group: &str, kind: &str, name: &str) -> String {
    format!("/subscriptions/{account}/resourceGroups/{group}/providers/Microsoft.Network/{kind}/{name}")
}

pub(super) fn address_id(address: &Address) -> String {
    network(&address.account, "Addresses", "publicIPAddresses", &address.name)
}

/// The public address of a machine that is nobody's reservation.
pub(super) fn own_address_name(machine: &str) -> String {
    format!("{machine}-own")
}

pub(super) fn own_address_id(machine: &MachineKey) -> String {
    network(&machine.account, "MC_Nodes", "publicIPAddresses", &own_address_name(&machine.name))
}

/// The number of the zone `westeurope-1` in `westeurope`; a machine in another spelling of a zone is in none.
pub(super) fn zone_number<'a>(region: &str, zone: &'a str) -> Option<&'a str> {
    let number = zone.strip_prefix(region)?.strip_prefix('-')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

/// An id made of the world's numbers.
pub(super) fn guid(number: u64, what: u64) -> String {
    Uuid::from_u64_pair(number, 0x8000_0000_0000_0000 | what).to_string()
}
