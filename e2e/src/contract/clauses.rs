//! The clauses. Each gets a freshly furnished bench.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use ip_address_controller::cloud::{
    Attach, Change, CloudError, Detach, ErrorKind, Gate, Holder, Interface, MachineId, Own, Power, Restore, Restored,
    Verified, Whereabouts,
};
use uuid::Uuid;

use super::{Bench, Closing, FAR, NODE, NODE_2, ONE, Open, PRIVATE, TWO, ip, until};
use crate::world::{self, Fault, Latency, Outcome, Point};

type Kept = anyhow::Result<()>;

pub async fn a_survey_shows_every_address_of_the_region_and_who_holds_it<B: Bench>(bench: &B) -> Kept {
    bench.world().move_address(ip(ONE)?, NODE).map_err(refused)?;
    bench.world().give_to_foreign(ip(TWO)?, "forwardingRules/web");
    let survey = bench.cloud().survey(&bench.scope()).await?;
    let holder = |text| anyhow::Ok(survey.addresses.get(&ip(text)?).map(|reservation| reservation.holder.clone()));
    ensure!(holder(ONE)? == Some(Holder::Machine(bench.machine(NODE).place)), "one: {:?}", holder(ONE)?);
    ensure!(matches!(holder(TWO)?, Some(Holder::Foreign(_))), "two: {:?}", holder(TWO)?);
    ensure!(survey.addresses.len() == 2, "the other region's addresses are none of this scope's");
    bench.world().free_address(ip(ONE)?);
    let survey = bench.cloud().survey(&bench.scope()).await?;
    let one = survey.addresses.get(&ip(ONE)?).context("one is missing")?;
    ensure!(one.holder == Holder::Free, "one: {:?}", one.holder);
    ensure!(one.tags.get("pool").is_some_and(|pool| pool == "sip"), "tags: {:?}", one.tags);
    Ok(())
}

pub async fn a_survey_that_fails_is_an_error<B: Bench>(bench: &B) -> Kept {
    bench.world().fail_every(bench.words().survey, Fault::refuse(503, "backendError", "come back later"));
    let error = failed(bench.cloud().survey(&bench.scope()).await)?;
    ensure!(error.kind == ErrorKind::Unavailable && error.settled, "{error:?}");
    Ok(())
}

pub async fn an_address_is_found_in_its_region_in_another_or_nowhere<B: Bench>(bench: &B) -> Kept {
    let find = async |text| anyhow::Ok(bench.cloud().find(&bench.scope(), ip(text)?).await?);
    let here = find(ONE).await?;
    ensure!(matches!(&here, Whereabouts::Here(found) if found.holder == Holder::Free), "{here:?}");
    let far = find(FAR).await?;
    ensure!(matches!(&far, Whereabouts::OtherRegion(region) if *region != bench.scope().region), "{far:?}");
    let nowhere = find("198.51.100.250").await?;
    ensure!(nowhere == Whereabouts::NotFound, "{nowhere:?}");
    Ok(())
}

pub async fn a_machine_shows_its_life_its_power_and_its_interface<B: Bench>(bench: &B) -> Kept {
    let inspect = async |name| bench.cloud().inspect(&bench.machine(name).place).await;
    let node = inspect(NODE).await?;
    ensure!(node.machine == bench.machine(NODE), "{node:?}");
    let own = matches!(node.interface, Interface::Ephemeral(_)) == bench.words().own_addresses;
    ensure!(node.power == Power::Running && own, "{node:?}");
    let private = inspect(PRIVATE).await?;
    ensure!(private.interface == Interface::Empty, "{private:?}");
    bench.world().move_address(ip(ONE)?, NODE_2).map_err(refused)?;
    bench.world().stop_machine(NODE_2);
    let stopped = inspect(NODE_2).await?;
    ensure!(stopped.power == Power::Stopped, "{stopped:?}");
    ensure!(stopped.interface == Interface::Reserved(ip(ONE)?), "{stopped:?}");
    bench.world().replace_machine(NODE).context("no machine to replace")?;
    let next = inspect(NODE).await?;
    ensure!(next.machine != node.machine, "{next:?}");
    if bench.words().names_are_reused {
        ensure!(next.machine.place == node.machine.place, "{next:?}");
    } else {
        let old = failed(bench.cloud().inspect(&node.machine.place).await)?;
        ensure!(old.kind == ErrorKind::NotFound, "{old:?}");
    }
    let gone = failed(inspect("never-was").await)?;
    ensure!(gone.kind == ErrorKind::NotFound, "{gone:?}");
    Ok(())
}

pub async fn attaching_twice_attaches_once<B: Bench>(bench: &B) -> Kept {
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    bench.world().clear_calls();
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    nothing_sent(bench)?;
    attached_once(bench, ONE)
}

pub async fn an_own_address_is_displaced_only_if_the_order_allows_it<B: Bench>(bench: &B) -> Kept {
    if !bench.words().own_addresses {
        return Ok(());
    }
    let own = bench.world().external_ip(NODE);
    let mut order = attach(bench, ONE, NODE)?;
    order.may_displace_own = false;
    let error = failed(bench.cloud().attach(&order).await)?;
    ensure!(error.kind == ErrorKind::Conflict && error.settled, "{error:?}");
    nothing_sent(bench)?;
    ensure!(bench.world().external_ip(NODE) == own, "its own address has gone");
    order.may_displace_own = true;
    let verified = bench.cloud().attach(&order).await?;
    is_on(bench, &verified, ONE, NODE)
}

pub async fn what_another_holds_is_not_stolen<B: Bench>(bench: &B) -> Kept {
    bench.world().move_address(ip(ONE)?, NODE_2).map_err(refused)?;
    bench.world().give_to_foreign(ip(TWO)?, "forwardingRules/web");
    for address in [ONE, TWO] {
        for machine in [NODE, PRIVATE] {
            let error = failed(bench.cloud().attach(&attach(bench, address, machine)?).await)?;
            ensure!(error.kind == ErrorKind::Conflict && error.settled, "{error:?}");
        }
    }
    nothing_sent(bench)?;
    ensure!(bench.world().machine_of(ip(ONE)?).as_deref() == Some(NODE_2), "it was stolen");
    Ok(())
}

pub async fn another_reserved_address_is_not_displaced<B: Bench>(bench: &B) -> Kept {
    bench.world().move_address(ip(TWO)?, NODE).map_err(refused)?;
    let error = failed(bench.cloud().attach(&attach(bench, ONE, NODE)?).await)?;
    ensure!(error.kind == ErrorKind::Conflict && error.settled, "{error:?}");
    nothing_sent(bench)?;
    ensure!(bench.world().machine_of(ip(TWO)?).as_deref() == Some(NODE), "it was displaced");
    Ok(())
}

pub async fn an_address_that_is_not_reserved_here_is_not_attached<B: Bench>(bench: &B) -> Kept {
    for address in [FAR, "198.51.100.250"] {
        let error = failed(bench.cloud().attach(&attach(bench, address, NODE)?).await)?;
        ensure!(error.kind == ErrorKind::NotFound && error.settled, "{error:?}");
    }
    nothing_sent(bench)
}

pub async fn a_machine_out_of_reach_is_refused_and_nothing_changes<B: Bench>(bench: &B) -> Kept {
    let machine = bench.out_of_reach();
    let before = bench.cloud().inspect(&machine.place).await?;
    let error = failed(bench.cloud().attach(&Attach { machine, ..attach(bench, ONE, NODE)? }).await)?;
    ensure!(error.kind == ErrorKind::Invalid && error.settled, "{error:?}");
    ensure!(bench.world().machine_of(ip(ONE)?).is_none(), "it is there all the same");
    let after = bench.cloud().inspect(&before.machine.place).await?;
    ensure!(after == before, "the machine was changed: {before:?}, then {after:?}");
    nothing_sent(bench)
}

pub async fn detaching_twice_detaches_once<B: Bench>(bench: &B) -> Kept {
    bench.cloud().attach(&attach(bench, ONE, NODE)?).await?;
    let verified = bench.cloud().detach(&detach(bench, ONE, NODE)?).await?;
    is_free(bench, &verified, ONE)?;
    bench.world().clear_calls();
    let verified = bench.cloud().detach(&detach(bench, ONE, NODE)?).await?;
    is_free(bench, &verified, ONE)?;
    nothing_sent(bench)
}

pub async fn detaching_takes_nothing_else_off<B: Bench>(bench: &B) -> Kept {
    bench.world().move_address(ip(TWO)?, NODE).map_err(refused)?;
    let own = bench.world().external_ip(NODE_2);
    for machine in [NODE, NODE_2] {
        let verified = bench.cloud().detach(&detach(bench, ONE, machine)?).await?;
        is_free(bench, &verified, ONE)?;
    }
    nothing_sent(bench)?;
    ensure!(bench.world().machine_of(ip(TWO)?).as_deref() == Some(NODE), "another address was taken off");
    ensure!(bench.world().external_ip(NODE_2) == own, "its own address was taken off");
    Ok(())
}

pub async fn a_vanished_machine_has_let_go<B: Bench>(bench: &B) -> Kept {
    bench.cloud().attach(&attach(bench, ONE, NODE)?).await?;
    let (on, off) = (attach(bench, ONE, NODE)?, detach(bench, ONE, NODE)?);
    bench.world().delete_machine(NODE);
    bench.world().clear_calls();
    let verified = bench.cloud().detach(&off).await?;
    is_free(bench, &verified, ONE)?;
    let error = failed(bench.cloud().attach(&on).await)?;
    ensure!(error.kind == ErrorKind::NotFound && error.settled, "{error:?}");
    nothing_sent(bench)
}

pub async fn a_replaced_machine_is_not_touched<B: Bench>(bench: &B) -> Kept {
    let (on, off, back) = (attach(bench, ONE, NODE)?, detach(bench, ONE, NODE)?, restore(bench, NODE));
    bench.world().replace_machine(NODE).context("no machine to replace")?;
    let error = failed(bench.cloud().attach(&on).await)?;
    ensure!(error.kind == ErrorKind::NotFound && error.settled, "{error:?}");
    // By right: whoever put it there meant the new machine.
    bench.world().move_address(ip(ONE)?, NODE).map_err(refused)?;
    bench.cloud().detach(&off).await?;
    let restored = bench.cloud().restore(&back).await?;
    ensure!(restored == Restored::MachineGone, "{restored:?}");
    nothing_sent(bench)?;
    ensure!(bench.world().machine_of(ip(ONE)?).as_deref() == Some(NODE), "it was taken off the new machine");
    Ok(())
}

pub async fn a_stopped_machine_lets_go<B: Bench>(bench: &B) -> Kept {
    bench.cloud().attach(&attach(bench, ONE, NODE)?).await?;
    bench.world().stop_machine(NODE);
    let verified = bench.cloud().detach(&detach(bench, ONE, NODE)?).await?;
    is_free(bench, &verified, ONE)
}

pub async fn a_throttled_request_is_over<B: Bench>(bench: &B) -> Kept {
    let words = bench.words();
    bench.world().fail_next(words.attach, words.throttled);
    let error = failed(bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await)?;
    ensure!(error.kind == ErrorKind::Throttled && error.settled, "{error:?}");
    sent(bench, 1).context("a throttled request must not be sent again by the client")?;
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)
}

pub async fn a_denied_request_is_over_and_changes_nothing<B: Bench>(bench: &B) -> Kept {
    bench.world().deny(bench.words().attach_permission);
    let error = failed(bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await)?;
    ensure!(error.kind == ErrorKind::Denied && error.settled, "{error:?}");
    ensure!(error.message.contains(bench.words().attach_permission), "does not say which: {error:?}");
    ensure!(bench.world().external_ip(PRIVATE).is_none(), "something changed");
    Ok(())
}

pub async fn bad_credentials_are_said_so<B: Bench>(bench: &B) -> Kept {
    bench.world().revoke_credentials();
    let error = failed(bench.cloud().survey(&bench.scope()).await)?;
    ensure!(error.kind == ErrorKind::Unauthenticated, "{error:?}");
    Ok(())
}

pub async fn an_unanswered_request_that_took_effect_is_found_done<B: Bench>(bench: &B) -> Kept {
    bench.world().fail_next(bench.words().attach, Fault::HangAfterEffect);
    let order = attach(bench, ONE, PRIVATE)?;
    let error = failed(bench.cloud().attach(&order).await)?;
    ensure!(error.kind == ErrorKind::Timeout && !error.settled, "{error:?}");
    let one = ip(ONE)?;
    until(bench.world(), "it took effect", |world| world.machine_of(one).is_some()).await?;
    bench.world().clear_calls();
    let verified = bench.cloud().attach(&order).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    nothing_sent(bench)?;
    attached_once(bench, ONE)
}

pub async fn an_unanswered_request_without_effect_is_repeated<B: Bench>(bench: &B) -> Kept {
    bench.world().fail_next(bench.words().attach, Fault::Hang);
    let order = attach(bench, ONE, PRIVATE)?;
    let error = failed(bench.cloud().attach(&order).await)?;
    ensure!(error.kind == ErrorKind::Timeout && !error.settled, "{error:?}");
    sent(bench, 1).context("what was not answered must not be sent again by the client")?;
    let verified = bench.cloud().attach(&order).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    attached_once(bench, ONE)
}

pub async fn a_lost_connection_leaves_the_outcome_open<B: Bench>(bench: &B) -> Kept {
    for fault in [Fault::Close, Fault::CloseAfterEffect] {
        bench.world().clear_calls();
        bench.world().fail_next(bench.words().attach, fault);
        let error = failed(bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await)?;
        ensure!(error.kind == ErrorKind::Unavailable && !error.settled, "{error:?}");
        sent(bench, 1).context("what was not answered must not be sent again by the client")?;
    }
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    attached_once(bench, ONE)
}

pub async fn a_change_that_fails_late_is_over<B: Bench>(bench: &B) -> Kept {
    let words = bench.words();
    let Some(fault) = words.fails_late else {
        return Ok(());
    };
    bench.world().fail_next(words.attach, fault.clone());
    let error = failed(bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await)?;
    ensure!(error.kind == ErrorKind::Quota && error.settled, "it has ended, and said why: {error:?}");
    ensure!(bench.world().machine_of(ip(ONE)?).is_none(), "it is there all the same");
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    bench.world().fail_next(words.detach, fault);
    let error = failed(bench.cloud().detach(&detach(bench, ONE, PRIVATE)?).await)?;
    ensure!(error.kind == ErrorKind::Quota && error.settled, "it has ended, and said why: {error:?}");
    let verified = bench.cloud().detach(&detach(bench, ONE, PRIVATE)?).await?;
    is_free(bench, &verified, ONE)
}

pub async fn an_effect_that_shows_late_is_waited_for<B: Bench>(bench: &B) -> Kept {
    let words = bench.words();
    let late = Fault::EffectAfterDone(Duration::from_millis(400));
    bench.world().fail_next(words.attach, late.clone());
    let verified = bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    is_on(bench, &verified, ONE, PRIVATE)?;
    bench.world().fail_next(words.detach, late);
    let verified = bench.cloud().detach(&detach(bench, ONE, PRIVATE)?).await?;
    is_free(bench, &verified, ONE)
}

pub async fn a_half_done_swap_is_repaired<B: Bench>(bench: &B) -> Kept {
    let words = bench.words();
    if !words.swaps_in_two {
        return Ok(());
    }
    bench.world().deny(words.attach_permission);
    let order = attach(bench, ONE, NODE)?;
    let error = failed(bench.cloud().attach(&order).await)?;
    ensure!(error.kind == ErrorKind::Denied && error.settled, "{error:?}");
    ensure!(bench.world().external_ip(NODE).is_none(), "the swap is not half done");
    bench.world().allow(words.attach_permission);
    let verified = bench.cloud().attach(&order).await?;
    is_on(bench, &verified, ONE, NODE)
}

pub async fn a_machine_gets_an_address_of_its_own_again<B: Bench>(bench: &B) -> Kept {
    bench.cloud().attach(&attach(bench, ONE, NODE)?).await?;
    bench.cloud().detach(&detach(bench, ONE, NODE)?).await?;
    let order = restore(bench, NODE);
    if bench.words().restores {
        let restored = bench.cloud().restore(&order).await?;
        ensure!(restored == Restored::Given, "{restored:?}");
        let own = bench.world().external_ip(NODE);
        ensure!(own.is_some() && own != Some(ip(ONE)?), "{own:?}");
    } else {
        bench.world().clear_calls();
        let error = failed(bench.cloud().restore(&order).await)?;
        ensure!(error.kind == ErrorKind::Unsupported && error.settled, "{error:?}");
        nothing_sent(bench)?;
        for (address, machine) in [(ONE, NODE), (TWO, NODE_2)] {
            bench.world().move_address(ip(address)?, machine).map_err(refused)?;
        }
    }
    bench.world().clear_calls();
    for machine in [NODE, NODE_2] {
        let restored = bench.cloud().restore(&restore(bench, machine)).await?;
        ensure!(restored == Restored::Given, "{restored:?}");
    }
    nothing_sent(bench).context("what is there is left alone")?;
    bench.world().delete_machine(NODE);
    let restored = bench.cloud().restore(&order).await?;
    ensure!(restored == Restored::MachineGone, "{restored:?}");
    Ok(())
}

pub async fn a_change_takes_no_more_requests_than_are_waited_for<B: Bench>(bench: &B) -> Kept {
    let (world, provider) = (bench.world(), bench.scope().provider);
    world.set_latency(Latency { operation: Duration::from_millis(500), ..Latency::default() });
    let counted = |change| {
        let calls = world.calls();
        world.clear_calls();
        println!("{provider}: {change:?} took {} requests", calls.len());
        ensure!(calls.len() <= provider.requests_of(change) as usize, "{change:?} took {}: {calls:#?}", calls.len());
        Ok(())
    };
    world.clear_calls();
    bench.cloud().attach(&attach(bench, ONE, NODE)?).await?;
    counted(Change::Attach)?;
    bench.cloud().detach(&detach(bench, ONE, NODE)?).await?;
    counted(Change::Detach)?;
    let restored = bench.cloud().restore(&restore(bench, NODE)).await;
    ensure!(restored.is_ok() == bench.words().restores, "{restored:?}");
    counted(Change::Restore)
}

pub async fn a_closed_gate_lets_nothing_out<B: Bench>(bench: &B) -> Kept {
    bench.world().move_address(ip(TWO)?, NODE_2).map_err(refused)?;
    let mut on = attach(bench, ONE, NODE)?;
    on.gate = Closing::after(0);
    let mut off = detach(bench, TWO, NODE_2)?;
    off.gate = Closing::after(0);
    let mut back = restore(bench, PRIVATE);
    back.gate = Closing::after(0);
    let mut errors = vec![failed(bench.cloud().attach(&on).await)?, failed(bench.cloud().detach(&off).await)?];
    if bench.words().restores {
        errors.push(failed(bench.cloud().restore(&back).await)?);
    }
    for error in errors {
        ensure!(error.settled, "nothing has left: {error:?}");
        ensure!(error.message.contains("closed the gate"), "{error:?}");
    }
    nothing_sent(bench)
}

pub async fn a_gate_that_closes_within_a_swap_stops_it<B: Bench>(bench: &B) -> Kept {
    if !bench.words().swaps_in_two {
        return Ok(());
    }
    let mut order = attach(bench, ONE, NODE)?;
    order.gate = Closing::after(1);
    let error = failed(bench.cloud().attach(&order).await)?;
    ensure!(error.settled, "what has left is over: {error:?}");
    sent(bench, 1)?;
    order.gate = Arc::new(Open);
    let verified = bench.cloud().attach(&order).await?;
    is_on(bench, &verified, ONE, NODE)
}

pub async fn a_late_detach_hits_nothing<B: Bench>(bench: &B) -> Kept {
    let one = ip(ONE)?;
    bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    let slow = bench.world().hold(bench.words().detach, Point::Arrival);
    let error = failed(bench.cloud().detach(&detach(bench, ONE, PRIVATE)?).await)?;
    ensure!(error.kind == ErrorKind::Timeout && !error.settled, "{error:?}");
    slow.arrived(1).await;
    // Meanwhile it comes off by another way, and is attached anew.
    bench.world().free_address(one);
    bench.cloud().attach(&attach(bench, ONE, PRIVATE)?).await?;
    slow.release();
    let method = bench.words().detach;
    until(bench.world(), "the late request was answered", |world| {
        world.calls().iter().any(|call| call.method == method && call.outcome != Outcome::Running)
    })
    .await?;
    ensure!(bench.world().machine_of(one).as_deref() == Some(PRIVATE), "the late detach took it off");
    Ok(())
}

pub async fn the_self_test_tells_what_is_missing<B: Bench>(bench: &B) -> Kept {
    // A permission can be asked of a thing only: here is one of each.
    bench.world().move_address(ip(TWO)?, NODE).map_err(refused)?;
    let missing = async || -> Vec<_> {
        bench.cloud().check(&bench.scope()).await.into_iter().filter(|finding| !finding.ok).collect()
    };
    let healthy = missing().await;
    ensure!(healthy.is_empty(), "nothing is missing: {healthy:#?}");
    let permission = bench.words().attach_permission;
    bench.world().deny(permission);
    let denied = missing().await;
    ensure!(denied.iter().any(|finding| finding.subject == permission), "{permission} is missing: {denied:#?}");
    bench.world().allow(permission);
    bench.world().revoke_credentials();
    let strange = missing().await;
    let says_so = strange.iter().any(|finding| {
        finding.subject == "credentials" || finding.message.contains(ErrorKind::Unauthenticated.label())
    });
    ensure!(says_so, "nobody is let in: {strange:#?}");
    nothing_sent(bench)
}

pub(super) fn attach<B: Bench>(bench: &B, address: &str, machine: &str) -> anyhow::Result<Attach> {
    Ok(Attach {
        scope: bench.scope(),
        address: ip(address)?,
        machine: bench.machine(machine),
        operation: Uuid::new_v4(),
        may_displace_own: true,
        gate: open(),
    })
}

fn detach<B: Bench>(bench: &B, address: &str, machine: &str) -> anyhow::Result<Detach> {
    Ok(Detach {
        scope: bench.scope(),
        address: ip(address)?,
        machine: bench.machine(machine),
        operation: Uuid::new_v4(),
        gate: open(),
    })
}

fn restore<B: Bench>(bench: &B, machine: &str) -> Restore {
    let machine: MachineId = bench.machine(machine);
    Restore { scope: bench.scope(), machine, operation: Uuid::new_v4(), own: Own::default(), gate: open() }
}

fn open() -> Arc<dyn Gate> {
    Arc::new(Open)
}

fn refused(refusal: world::Refusal) -> anyhow::Error {
    anyhow::anyhow!("the test asks the world for something impossible: {refusal:?}")
}

fn failed<T: std::fmt::Debug>(result: Result<T, CloudError>) -> anyhow::Result<CloudError> {
    match result {
        Ok(done) => anyhow::bail!("should have failed: {done:?}"),
        Err(error) => Ok(error),
    }
}

fn is_on<B: Bench>(bench: &B, verified: &Verified, address: &str, machine: &str) -> Kept {
    let wanted = Holder::Machine(bench.machine(machine).place);
    ensure!(verified.holder == wanted, "verified as held by {:?}", verified.holder);
    let seen = bench.world().machine_of(ip(address)?);
    ensure!(seen.as_deref() == Some(machine), "verified, but it is on {seen:?}");
    Ok(())
}

fn is_free<B: Bench>(bench: &B, verified: &Verified, address: &str) -> Kept {
    ensure!(verified.holder == Holder::Free, "verified as held by {:?}", verified.holder);
    let seen = bench.world().machine_of(ip(address)?);
    ensure!(seen.is_none(), "verified as free, but it is on {seen:?}");
    Ok(())
}

fn attached_once<B: Bench>(bench: &B, address: &str) -> Kept {
    let attaches = bench.world().attaches(ip(address)?);
    ensure!(attaches == 1, "attached {attaches} times");
    Ok(())
}

fn nothing_sent<B: Bench>(bench: &B) -> Kept {
    sent(bench, 0)
}

fn sent<B: Bench>(bench: &B, requests: usize) -> Kept {
    let mutations = bench.world().mutations();
    ensure!(mutations.len() == requests, "sent {mutations:#?}");
    Ok(())
}
