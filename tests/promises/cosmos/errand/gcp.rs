//! `src/cloud/gcp/swap.rs`.

use ip_address_controller::cloud::{CloudError, ErrorKind, Holder, Interface, Restored, Verified, Whereabouts};

use super::{Answer, Ended, Errand, Expect, On, Reply, Step, Work, changed, fail, failed, found, live, verified};
use crate::cosmos::cloud::{Live, Mark, Order, THEIRS, Told};

const ADD: &str = "instances.addAccessConfig";
const DELETE: &str = "instances.deleteAccessConfig";

impl Errand {
    pub(super) fn gcp(&self, step: Step, reply: Reply) -> On {
        let Reply { answer, began, .. } = reply;
        let go = || -> Result<On, On> {
            Ok(match (step, &self.work) {
                (Step::First, Work::Attach { .. }) => {
                    let Some(live) = live(answer)? else { return Err(failed(self.another_life(ADD))) };
                    if self.rules.live_read_before_change && !self.same_life(&live) {
                        return Err(failed(self.another_life(ADD)));
                    }
                    On::Go(Step::Second { live: Some(live), found: None, began })
                }
                (Step::First, Work::Restore) => match self.paid_at_google(live(answer)?) {
                    Some(ended) => ended,
                    None => On::Go(Step::Change(self.add())),
                },
                (Step::First, _) => self.off_google(live(answer)?),
                (Step::Second { live: Some(live), .. }, Work::Attach { may_displace_own }) => {
                    let Whereabouts::Here(shown) = found(answer)?.whereabouts else { return Err(self.not_reserved()) };
                    self.onto_google(&live, &shown.holder, *may_displace_own)
                }
                (Step::Delete { name, then_add }, _) => match changed(DELETE, answer) {
                    Ok(_) => self.deleted(then_add),
                    // Somebody may have been quicker; a read is sure.
                    Err(refused)
                        if refused.settled
                            && matches!(
                                refused.kind,
                                ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Conflict
                            ) =>
                    {
                        On::Go(Step::Recheck { name, then_add, refused })
                    }
                    Err(refused) => failed(refused),
                },
                (Step::Recheck { name, then_add, refused }, _) => match live(answer)? {
                    Some(live) if self.same_life(&live) && !has_config(&live, &name) => self.deleted(then_add),
                    Some(_) => failed(refused),
                    None => failed(self.another_life(DELETE)),
                },
                (Step::Change(_), Work::Restore) => match self.added(answer) {
                    Err(error) if !error.settled => failed(error),
                    result => On::Go(Step::Paid { refused: result.err(), left: 1 }),
                },
                (Step::Change(_), _) => match self.added(answer) {
                    Ok(_) => self.closing(Expect::Ours),
                    Err(error) => failed(error),
                },
                (Step::Paid { refused, .. }, _) => self.paid_at_google(live(answer)?).unwrap_or_else(|| {
                    failed(refused.unwrap_or_else(|| {
                        CloudError::new(ErrorKind::Unavailable, ADD, "added, but the machine does not show it yet")
                    }))
                }),
                (Step::Closing { expect, left }, work) => {
                    let holder = match found(answer)?.whereabouts {
                        Whereabouts::Here(shown) => shown.holder,
                        Whereabouts::OtherRegion(_) | Whereabouts::NotFound => {
                            Holder::Foreign("no longer reserved in the region".to_owned())
                        }
                    };
                    let seen = match expect {
                        Expect::Ours => holder == self.ours(),
                        Expect::NotOurs | Expect::OffInterface => holder != self.ours(),
                        Expect::Anything => true,
                    };
                    match work {
                        _ if seen => verified(began, holder),
                        _ if left > 1 => On::Go(Step::Closing { expect, left: left - 1 }),
                        Work::Detach { .. } => On::Go(Step::StillThere { verified: Verified::sure(began, holder) }),
                        _ => self.not_shown(),
                    }
                }
                (Step::StillThere { verified: last }, _) => match live(answer) {
                    Ok(Some(live)) if self.same_life(&live) && !self.holds(&live) => {
                        let elsewhere = format!("another interface of {}", self.intent().machine.place);
                        verified(last.began, Holder::Foreign(elsewhere))
                    }
                    _ => self.not_shown(),
                },
                (step, work) => unreachable!("{work:?} has no {step:?} here"),
            })
        };
        go().unwrap_or_else(|on| on)
    }

    /// `Gcp::add`: whose machine it was by then is told with the end.
    fn added(&self, answer: Answer) -> Result<(), CloudError> {
        match changed(ADD, answer)? {
            Told::Machine(machine) if machine != self.intent().machine => Err(self.another_life(ADD)),
            Told::Machine(_) | Told::Association(_) | Told::Nothing => Ok(()),
        }
    }

    /// `plan`.
    fn onto_google(&self, live: &Live, holder: &Holder, may_displace_own: bool) -> On {
        let (ip, place) = (self.terms().ip, &self.intent().machine.place);
        let here = self.holds(live);
        let displace = || On::Go(Step::Delete { name: live.mark.clone(), then_add: true });
        if !self.rules.live_read_before_change {
            return match live.seat.interface {
                _ if here => self.closing(Expect::Ours),
                Interface::Empty => On::Go(Step::Change(self.add())),
                Interface::Ephemeral(_) | Interface::Reserved(_) => displace(),
            };
        }
        match holder {
            Holder::Machine(holder) if holder == place && here => return self.closing(Expect::Ours),
            Holder::Free if here => return self.closing(Expect::Ours),
            Holder::Machine(holder) => return fail(ErrorKind::Conflict, ADD, format!("{ip} is held by {holder}")),
            Holder::Foreign(holder) => return fail(ErrorKind::Conflict, ADD, format!("{ip} is held by {holder}")),
            Holder::Free => {}
        }
        match &live.seat.interface {
            Interface::Empty => On::Go(Step::Change(self.add())),
            Interface::Reserved(other) => {
                fail(ErrorKind::Conflict, ADD, format!("{place} already holds the reserved address {other}"))
            }
            Interface::Ephemeral(_) if may_displace_own => displace(),
            Interface::Ephemeral(_) => fail(
                ErrorKind::Conflict,
                ADD,
                format!("{place} has an external address of its own, which the order does not allow to displace"),
            ),
        }
    }

    /// `take_off`, after its first read.
    fn off_google(&self, live: Option<Live>) -> On {
        let blind = !self.rules.live_read_before_change;
        match live {
            Some(live) if self.same_life(&live) || blind => {
                let hit = self.holds(&live) || (blind && live.seat.interface != Interface::Empty);
                match hit {
                    true => On::Go(Step::Delete { name: live.mark, then_add: false }),
                    false => self.closing(Expect::NotOurs),
                }
            }
            // Another machine under the same name may hold this address by right.
            Some(_) => self.closing(Expect::Anything),
            None => self.closing(Expect::NotOurs),
        }
    }

    fn deleted(&self, then_add: bool) -> On {
        if then_add { On::Go(Step::Change(self.add())) } else { self.closing(Expect::NotOurs) }
    }

    fn add(&self) -> Order {
        let intent = self.intent();
        let name = if self.rules.names_of_its_own { Mark::Made(intent.operation) } else { THEIRS };
        Order::AddConfig { machine: intent.machine.place.clone(), name, ip: self.address() }
    }

    /// `paid`.
    fn paid_at_google(&self, live: Option<Live>) -> Option<On> {
        match live {
            Some(live) if self.same_life(&live) && live.seat.interface == Interface::Empty => None,
            Some(live) if self.same_life(&live) => Some(On::End(Ended::Restored(Restored::Given))),
            Some(_) | None => Some(On::End(Ended::Restored(Restored::MachineGone))),
        }
    }
}

fn has_config(live: &Live, name: &Mark) -> bool {
    live.seat.interface != Interface::Empty && live.mark == *name
}
