//! The world's numbers as EC2 spells its ids: a word, a dash and 17 hexadecimal digits.

use crate::world::{Address, External, Machine};

/// `i-…` of a machine; a replacement has another.
pub fn instance_id(machine: &Machine) -> String {
    format!("i-{:017x}", machine.id)
}

/// `spec.providerID` of the machine's Node, as AWS's cloud provider writes it.
pub fn provider_id(machine: &Machine) -> String {
    format!("aws:///{}/{}", machine.key.zone, instance_id(machine))
}

/// `eni-…` of one of a machine's interfaces; 0 is the primary one.
pub fn interface_id(machine: &Machine, index: usize) -> String {
    format!("eni-{:016x}{index:x}", machine.id)
}

/// `eipalloc-…` of a reserved address.
pub fn allocation_id(address: &Address) -> String {
    format!("eipalloc-{:017x}", address.id)
}

/// `eipassoc-…` of what sits on a machine: each association has one of its own.
pub fn association_id(machine: &Machine, external: &External) -> String {
    match external.config.starts_with(ASSOCIATION) {
        true => external.config.clone(),
        // Put there behind the API's back.
        false => format!("{ASSOCIATION}{:012x}{:05x}", machine.id & 0xffff_ffff_ffff, machine.generation & 0xf_ffff),
    }
}

/// Of an association that is about to be made.
pub(super) fn new_association() -> String {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    format!("{ASSOCIATION}{high:017x}")
}

const ASSOCIATION: &str = "eipassoc-";

/// The zones in which an address of a group works: `us-west-2-lax-1a` is of `us-west-2-lax-1`, `us-west-2a` of the region.
pub(super) fn group(zone: &str) -> &str {
    zone.trim_end_matches(|last: char| last.is_ascii_lowercase())
}
