//! What every cloud must do, over the wire: one clause, one function, the same for all providers.
//!
//! A provider's test file makes a [`Bench`] and names it in [`contract_tests!`](crate::contract_tests), which turns each
//! clause into a test. The clauses speak of the world's words only; what differs between the wires (names of methods,
//! spelling of refusals) is in [`Words`].

mod clauses;
mod furniture;
mod gates;
mod told;

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use ip_address_controller::cloud::{Cloud, MachineId, Scope};

pub use self::{
    clauses::*,
    furniture::{FAR, Home, NODE, NODE_2, ONE, PRIVATE, TWO, furnish, furnish_private},
    gates::{Closing, Open},
    told::*,
};
use crate::world::{Fault, World};

/// One provider's real client, connected to a furnished world over the wire.
#[async_trait]
pub trait Bench: Send + Sync + Sized {
    /// A new world with [`furnish`]ed things in it, and a client connected to it.
    async fn start() -> anyhow::Result<Self>;

    /// The world behind the wire.
    fn world(&self) -> &World;

    /// The client under test.
    fn cloud(&self) -> &dyn Cloud;

    /// Where the furniture stands, as the client names it.
    fn scope(&self) -> Scope;

    /// The present life of the machine of that name. For one that does not exist, a life that never was.
    fn machine(&self, name: &str) -> MachineId;

    /// A running machine where the furniture's addresses do not reach: of another region or zone. Starts it.
    fn out_of_reach(&self) -> MachineId;

    /// What differs between the wires.
    fn words(&self) -> Words;
}

/// A provider's words for what the clauses need.
#[derive(Clone, Debug)]
pub struct Words {
    /// The method that puts an address on.
    pub attach: &'static str,
    /// The method that takes an address off.
    pub detach: &'static str,
    /// The method that lists addresses.
    pub survey: &'static str,
    /// The permission without which `attach` is refused.
    pub attach_permission: &'static str,
    /// How a rate limit is said.
    pub throttled: Fault,
    /// How a change fails for a quota after it was accepted; `None` where changes are answered when they are done.
    pub fails_late: Option<Fault>,
    /// Room is made by a request of its own, so a swap can be left half done.
    pub swaps_in_two: bool,
    /// A machine can have an address of its own that goes when it is taken off.
    pub own_addresses: bool,
    /// A machine gets an address of its own again when it is asked for.
    pub restores: bool,
    /// How its requests show in traces.
    pub told: Told,
    /// A replacement is found under the name of what it replaces; else it has another name.
    pub names_are_reused: bool,
}

/// Makes a test of each clause for one [`Bench`].
#[macro_export]
macro_rules! contract_tests {
    ($bench:ty) => {
        $crate::contract_tests! { $bench:
            a_survey_shows_every_address_of_the_region_and_who_holds_it
            a_survey_that_fails_is_an_error
            an_address_is_found_in_its_region_in_another_or_nowhere
            a_machine_shows_its_life_its_power_and_its_interface
            attaching_twice_attaches_once
            an_own_address_is_displaced_only_if_the_order_allows_it
            what_another_holds_is_not_stolen
            another_reserved_address_is_not_displaced
            an_address_that_is_not_reserved_here_is_not_attached
            a_machine_out_of_reach_is_refused_and_nothing_changes
            detaching_twice_detaches_once
            detaching_takes_nothing_else_off
            a_vanished_machine_has_let_go
            a_replaced_machine_is_not_touched
            a_stopped_machine_lets_go
            a_throttled_request_is_over
            a_denied_request_is_over_and_changes_nothing
            bad_credentials_are_said_so
            an_unanswered_request_that_took_effect_is_found_done
            an_unanswered_request_without_effect_is_repeated
            a_lost_connection_leaves_the_outcome_open
            a_change_that_fails_late_is_over
            an_effect_that_shows_late_is_waited_for
            a_half_done_swap_is_repaired
            a_machine_gets_an_address_of_its_own_again
            a_change_takes_no_more_requests_than_are_waited_for
            a_closed_gate_lets_nothing_out
            a_gate_that_closes_within_a_swap_stops_it
            a_late_detach_hits_nothing
            the_self_test_tells_what_is_missing
            a_request_tells_where_it_went_and_what_was_answered
        }
    };
    ($bench:ty: $($clause:ident)+) => {
        $(
            #[tokio::test]
            async fn $clause() {
                let bench = <$bench as $crate::contract::Bench>::start().await.unwrap();
                if let Err(broken) = $crate::contract::$clause(&bench).await {
                    panic!("{broken:?}\ncalls: {:#?}", $crate::contract::Bench::world(&bench).calls());
                }
                assert_eq!($crate::contract::Bench::world(&bench).violations(), Vec::<String>::new());
            }
        )+
    };
}

/// Waiting for the world longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the world is so.
async fn until(world: &World, what: &str, so: impl Fn(&World) -> bool) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(PATIENCE, world.until(|world| so(world).then_some(()))).await;
    waited.map_err(|_| anyhow::anyhow!("waited in vain until {what}"))
}

/// A literal of ours.
fn ip(text: &str) -> anyhow::Result<IpAddr> {
    Ok(text.parse()?)
}
