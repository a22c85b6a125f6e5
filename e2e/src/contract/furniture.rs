//! What stands in the world before each clause.

use crate::world::{Address, NewMachine, World};

/// A free address in the home region.
pub const ONE: &str = "203.0.113.1";
/// Another.
pub const TWO: &str = "203.0.113.2";
/// A free address in another region of the same account.
pub const FAR: &str = "203.0.113.9";

/// A running machine, with an address of its own where the cloud gives such.
pub const NODE: &str = "node-1";
/// Another.
pub const NODE_2: &str = "node-2";
/// A running machine without an external address.
pub const PRIVATE: &str = "node-private";

/// Where the furniture goes, in the provider's spelling.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    pub account: &'static str,
    pub region: &'static str,
    pub zone: &'static str,
    pub other_region: &'static str,
}

/// Puts the furniture in.
pub fn furnish(world: &World, home: Home) -> anyhow::Result<()> {
    put(world, home, |machine| machine)
}

/// The same in a cloud whose machines have no addresses of their own.
pub fn furnish_private(world: &World, home: Home) -> anyhow::Result<()> {
    put(world, home, NewMachine::private)
}

fn put(world: &World, home: Home, node: impl Fn(NewMachine) -> NewMachine) -> anyhow::Result<()> {
    for (region, name, ip) in [(home.region, "one", ONE), (home.region, "two", TWO), (home.other_region, "far", FAR)] {
        world.add_address(Address::new(home.account, region, name, ip.parse()?).tag("pool", "sip"));
    }
    for name in [NODE, NODE_2] {
        world.add_machine(node(NewMachine::new(home.account, home.region, home.zone, name)));
    }
    world.add_machine(NewMachine::new(home.account, home.region, home.zone, PRIVATE).private());
    Ok(())
}
