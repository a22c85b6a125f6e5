//! `src/cloud/azure/swap.rs`.

use ip_address_controller::cloud::{ErrorKind, Holder, Interface, Power, Restored, Whereabouts};

use super::{Ended, Errand, Expect, On, Reply, Step, Work, changed, fail, failed, found, live, verified};
use crate::cosmos::cloud::{Found, Live, Mark, Order};

const WRITE: &str = "networkInterfaces.createOrUpdate";
const RESTORE: &str = "restore";

impl Errand {
    pub(super) fn azure(&self, step: Step, reply: Reply) -> On {
        let Reply { answer, began, .. } = reply;
        let blind = !self.rules.live_read_before_change;
        let go = || -> Result<On, On> {
            Ok(match (step, &self.work) {
                (Step::First, Work::Attach { .. }) => {
                    let Some(live) = live(answer)? else { return Err(failed(self.another_life(WRITE))) };
                    if !self.same_life(&live) && !blind {
                        return Err(failed(self.another_life(WRITE)));
                    }
                    On::Go(Step::Second { live: Some(live), found: None, began })
                }
                (Step::First, Work::Restore) => match live(answer)? {
                    Some(live) if self.same_life(&live) => match live.seat.interface {
                        Interface::Empty => {
                            fail(ErrorKind::Unsupported, RESTORE, "Azure gives a machine no address of its own")
                        }
                        _ => On::End(Ended::Restored(Restored::Given)),
                    },
                    Some(_) | None => On::End(Ended::Restored(Restored::MachineGone)),
                },
                (Step::First, _) => match live(answer)? {
                    Some(live) if self.same_life(&live) || blind => {
                        let hit = self.holds(&live) || (blind && live.seat.interface != Interface::Empty);
                        match hit {
                            true => On::Go(Step::Change(self.put(live.mark, false))),
                            false => self.closing(Expect::NotOurs),
                        }
                    }
                    // Another machine under the same name may hold this address by right. But what the old one left
                    // behind is ours to take.
                    Some(_) | None => On::Go(Step::Second { live: None, found: None, began }),
                },
                (Step::Second { live: Some(live), .. }, _) => {
                    let found = found(answer)?;
                    let Whereabouts::Here(shown) = &found.whereabouts else { return Err(self.not_reserved()) };
                    self.onto_azure(&live, &shown.holder, &found)
                }
                (Step::Second { live: None, .. }, _) => match found(answer)?.mount {
                    Some(mount) if mount.left_behind && mount.place == self.intent().machine.place => {
                        On::Go(Step::Change(self.put(mount.mark, false)))
                    }
                    Some(_) | None => self.closing(Expect::Anything),
                },
                (Step::Change(_), work) => match changed(WRITE, answer) {
                    Ok(_) if matches!(work, Work::Attach { .. }) => self.closing(Expect::Ours),
                    Ok(_) => self.closing(Expect::OffInterface),
                    Err(error) => failed(error),
                },
                (Step::Closing { expect, left }, _) => {
                    let Found { whereabouts, mount } = found(answer)?;
                    let Whereabouts::Here(shown) = whereabouts else {
                        let gone = Holder::Foreign("no longer reserved in the subscription".to_owned());
                        return Ok(verified(began, gone));
                    };
                    let seen = match expect {
                        Expect::Ours => shown.holder == self.ours(),
                        Expect::NotOurs => shown.holder != self.ours(),
                        Expect::OffInterface => mount.is_none_or(|mount| mount.place != self.intent().machine.place),
                        Expect::Anything => true,
                    };
                    match seen {
                        true => verified(began, shown.holder),
                        false if left > 1 => On::Go(Step::Closing { expect, left: left - 1 }),
                        false => self.not_shown(),
                    }
                }
                (step, work) => unreachable!("{work:?} has no {step:?} here"),
            })
        };
        go().unwrap_or_else(|on| on)
    }

    /// `plan`.
    fn onto_azure(&self, live: &Live, holder: &Holder, found: &Found) -> On {
        let (ip, place) = (self.terms().ip, &self.intent().machine.place);
        let here = self.holds(live);
        let refuse = |kind, what: String| fail(kind, WRITE, what);
        match holder {
            Holder::Machine(holder) if holder == place && here => return self.closing(Expect::Ours),
            // On the interface, and the address does not say so yet: the closing read waits for that.
            Holder::Free | Holder::Foreign(_) if here && found.mount.is_none() => return self.closing(Expect::Ours),
            _ if !self.rules.live_read_before_change => {
                return On::Go(Step::Change(self.put(live.mark.clone(), true)));
            }
            Holder::Machine(holder) => return refuse(ErrorKind::Conflict, format!("{ip} is held by {holder}")),
            Holder::Foreign(holder) => return refuse(ErrorKind::Conflict, format!("{ip} is held by {holder}")),
            Holder::Free => {}
        }
        if live.seat.interface != Interface::Empty {
            return refuse(ErrorKind::Conflict, format!("{place} already has a public address, which is left alone"));
        }
        if live.seat.power == Power::Stopped {
            return refuse(ErrorKind::Invalid, format!("{place} does not run"));
        }
        On::Go(Step::Change(self.put(live.mark.clone(), true)))
    }

    fn put(&self, etag: Mark, on: bool) -> Order {
        Order::PutInterface {
            machine: self.intent().machine.place.clone(),
            etag: self.rules.if_match.then_some(etag),
            set: self.address().filter(|_| on),
        }
    }
}
