//! `src/cloud/aws/swap.rs` and `src/cloud/aws/restore.rs`.

use std::time::Instant;

use ip_address_controller::cloud::{CloudError, ErrorKind, Holder, Interface, Power, Restored, Whereabouts};

use super::{Ended, Errand, On, Recent, Reply, Step, Work, changed, fail, failed, found, live, read, verified};
use crate::cosmos::cloud::{Found, Live, Mark, Mount, Order, Told};

const ASSOCIATE: &str = "AssociateAddress";
const DISASSOCIATE: &str = "DisassociateAddress";
const ADDRESSES: &str = "DescribeAddresses";
const MODIFY: &str = "ModifyNetworkInterfaceAttribute";

impl Errand {
    pub(super) fn aws(&mut self, step: Step, reply: Reply, recent: &mut Recent) -> On {
        let on = match self.work.clone() {
            Work::Attach { may_displace_own } => self.onto_aws(step, reply, recent, may_displace_own),
            Work::Restore => self.back_at_aws(step, reply, recent),
            _ => self.off_aws(step, reply, recent),
        };
        on.unwrap_or_else(|on| on)
    }

    fn is_on(mount: &Mount, live: &Live) -> bool {
        mount.place == live.seat.machine.place && mount.instance == live.seat.machine.instance
    }

    /// `put_on`, `associate` and `whose`.
    fn onto_aws(&self, step: Step, reply: Reply, recent: &mut Recent, may_displace_own: bool) -> Result<On, On> {
        let Reply { answer, began, now } = reply;
        let (ip, machine) = (self.terms().ip, &self.intent().machine);
        Ok(match step {
            Step::First => {
                let Some(live) = live(answer)? else { return Err(failed(self.another_life(ASSOCIATE))) };
                if self.rules.live_read_before_change && !self.same_life(&live) {
                    return Err(failed(self.another_life(ASSOCIATE)));
                }
                On::Go(Step::Second { live: Some(live), found: None, began })
            }
            Step::Second { live: Some(mut live), began, .. } => {
                let Found { whereabouts: Whereabouts::Here(shown), mount } = found(answer)? else {
                    return Err(self.not_reserved());
                };
                let displaced = matches!(live.seat.interface, Interface::Ephemeral(_)).then(|| live.mark.clone());
                live.seat.interface = recent.interface(&machine.place, live.seat.interface.clone(), now);
                let association = recent.association(ip, mount, now);
                match association.as_ref().is_some_and(|association| Self::is_on(association, &live)) {
                    true => read(began, self.ours()),
                    false => {
                        if self.rules.live_read_before_change {
                            self.may_associate(&live, &shown.holder, association.as_ref(), may_displace_own)?;
                        }
                        let reassociate = !self.rules.takes_from_nobody;
                        let order = Order::Associate { machine: machine.place.clone(), ip, reassociate };
                        On::Go(Step::Associate { order, displaced })
                    }
                }
            }
            Step::Associate { displaced, .. } => match changed(ASSOCIATE, answer) {
                Ok(told) => {
                    if let Told::Association(mark) = told {
                        recent.made(ip, self.mount(mark), displaced, now);
                    }
                    verified(now, self.ours())
                }
                Err(error) if error.settled && error.kind == ErrorKind::Conflict => {
                    On::Go(Step::Whose { refused: Some(error), left: self.rules.looks })
                }
                Err(error) => failed(error),
            },
            Step::Whose { refused: Some(refused), left } => {
                let Found { whereabouts: Whereabouts::Here(_), mount } = found(answer)? else {
                    return Err(self.not_reserved());
                };
                match recent.association(ip, mount, began) {
                    Some(on) if on.place == machine.place && on.instance == machine.instance => {
                        read(began, self.ours())
                    }
                    Some(_) => failed(refused),
                    None if left > 1 => On::Go(Step::Whose { refused: Some(refused), left: left - 1 }),
                    None => fail(
                        ErrorKind::Unavailable,
                        ASSOCIATE,
                        format!("{}, but it is not shown yet with what", refused.message),
                    ),
                }
            }
            step => unreachable!("an attach has no {step:?} here"),
        })
    }

    fn mount(&self, mark: Mark) -> Mount {
        let machine = &self.intent().machine;
        Mount { place: machine.place.clone(), instance: machine.instance.clone(), mark, left_behind: false }
    }

    /// `plan`, where the address is not there yet.
    fn may_associate(
        &self,
        live: &Live,
        holder: &Holder,
        association: Option<&Mount>,
        may_displace_own: bool,
    ) -> Result<(), On> {
        let (ip, place) = (self.terms().ip, &self.intent().machine.place);
        let refuse = |kind, what: String| Err(fail(kind, ASSOCIATE, what));
        if let Some(association) = association {
            return refuse(ErrorKind::Conflict, format!("{ip} is held by {}", association.place));
        }
        if let Holder::Foreign(holder) = holder {
            return refuse(ErrorKind::Conflict, format!("{ip} is held by {holder}"));
        }
        match &live.seat.interface {
            Interface::Reserved(shown) if *shown == ip => {}
            Interface::Reserved(other) => {
                return refuse(ErrorKind::Conflict, format!("{place} already holds the reserved address {other}"));
            }
            Interface::Ephemeral(_) if !may_displace_own => {
                return refuse(
                    ErrorKind::Conflict,
                    format!("{place} has a public address of its own, which the order does not allow to displace"),
                );
            }
            Interface::Ephemeral(_) | Interface::Empty => {}
        }
        match live.seat.power {
            Power::Running | Power::Stopped => Ok(()),
            Power::Changing => refuse(ErrorKind::Unavailable, format!("{place} is neither running nor stopped")),
        }
    }

    /// `take_off`, `disassociate` and `until_free`.
    fn off_aws(&mut self, step: Step, reply: Reply, recent: &mut Recent) -> Result<On, On> {
        let Reply { answer, began, now } = reply;
        let (ip, machine) = (self.terms().ip, self.intent().machine.clone());
        let blind = !self.rules.live_read_before_change;
        let until_free = On::Go(Step::Whose { refused: None, left: self.rules.looks });
        Ok(match step {
            Step::First => {
                let Found { whereabouts, mount } = found(answer)?;
                let Whereabouts::Here(shown) = &whereabouts else { return Ok(released(began)) };
                match recent.association_to_end(ip, mount, began) {
                    None => read(began, Holder::Free),
                    Some(on) if on.instance != machine.instance && !blind => read(began, shown.holder.clone()),
                    mount => On::Go(Step::Second { live: None, found: Some(Found { whereabouts, mount }), began }),
                }
            }
            Step::Second { found: Some(Found { mount: Some(association), .. }), began, .. } => match live(answer)? {
                Some(live) if Self::is_on(&association, &live) || blind => {
                    self.was_sure = recent.doubt(&association);
                    On::Go(Step::Change(Order::Disassociate { association: association.mark }))
                }
                Some(_) => read(began, Holder::Foreign(format!("another interface of {}", machine.place))),
                // With the machine its associations end, sooner or later.
                None => until_free,
            },
            Step::Change(Order::Disassociate { association }) => match changed(DISASSOCIATE, answer) {
                Ok(_) => {
                    recent.ended(ip, &self.mount(association), now);
                    verified(now, Holder::Free)
                }
                Err(error) if error.settled && error.kind == ErrorKind::NotFound => {
                    recent.ended(ip, &self.mount(association), now);
                    until_free
                }
                Err(error) => {
                    if error.settled && self.was_sure {
                        recent.trust(&association);
                    }
                    failed(error)
                }
            },
            Step::Whose { left, .. } => {
                let Found { whereabouts: Whereabouts::Here(shown), mount } = found(answer)? else {
                    return Ok(released(began));
                };
                let gone = recent.association(ip, mount.clone(), began).is_none();
                match mount {
                    None => verified(began, Holder::Free),
                    Some(_) if gone => verified(began, Holder::Free),
                    Some(other) if other.instance != machine.instance => verified(began, shown.holder),
                    Some(_) if left > 1 => On::Go(Step::Whose { refused: None, left: left - 1 }),
                    Some(_) => fail(
                        ErrorKind::Unavailable,
                        ADDRESSES,
                        format!("{ip} is off, but still shown on {}", machine.place),
                    ),
                }
            }
            step => unreachable!("a detach has no {step:?} here"),
        })
    }

    /// `give_back`.
    fn back_at_aws(&self, step: Step, reply: Reply, recent: &mut Recent) -> Result<On, On> {
        let Reply { answer, now, .. } = reply;
        let machine = &self.intent().machine;
        let looks = |left| On::Go(Step::Paid { refused: None, left });
        Ok(match step {
            Step::First => match self.paid_at_aws(live(answer)?, recent, now) {
                Ok(paid) => paid,
                Err(live) if live.seat.power == Power::Changing => {
                    let why = format!("{} is neither running nor stopped", machine.place);
                    fail(ErrorKind::Unavailable, MODIFY, why)
                }
                Err(live) if live.seat.power == Power::Stopped && !live.several_interfaces => {
                    let why = format!("{} is stopped; AWS gives it one by itself when it starts", machine.place);
                    fail(ErrorKind::Unsupported, MODIFY, why)
                }
                Err(_) if recent.was_asked(&machine.instance, now) => looks(self.rules.looks),
                Err(_) => On::Go(Step::Change(Order::GiveOwn { machine: machine.place.clone() })),
            },
            Step::Change(_) => match changed(MODIFY, answer) {
                Ok(_) => {
                    recent.asked(&machine.instance, now);
                    looks(self.rules.looks)
                }
                Err(error) if !error.settled => failed(error),
                // Refused because AWS was quicker, or the machine has just gone: only a read can say.
                Err(error) => On::Go(Step::Paid { refused: Some(error), left: 1 }),
            },
            Step::Paid { refused, left } => match (self.paid_at_aws(live(answer)?, recent, now), refused) {
                (Ok(paid), _) => paid,
                (Err(live), Some(_)) if matches!(live.seat.interface, Interface::Ephemeral(_)) => {
                    let why = format!("{} is still shown with what it had before, and refuses", machine.place);
                    fail(ErrorKind::Unavailable, MODIFY, why)
                }
                (Err(_), Some(error)) if error.kind == ErrorKind::Denied => {
                    let why = format!(
                        "{} has one interface, so AWS gives it an address of its own by itself within minutes",
                        machine.place
                    );
                    failed(CloudError::new(ErrorKind::Unavailable, MODIFY, why))
                }
                (Err(_), Some(error)) => failed(error),
                (Err(_), None) if left > 1 => looks(left - 1),
                (Err(_), None) => fail(
                    ErrorKind::Unavailable,
                    MODIFY,
                    format!("{} was asked for an address of its own and does not show one yet", machine.place),
                ),
            },
            step => unreachable!("a restore has no {step:?} here"),
        })
    }

    /// `paid`. Else how the machine is.
    fn paid_at_aws(&self, live: Option<Live>, recent: &Recent, now: Instant) -> Result<On, Live> {
        let gone = Ok(On::End(Ended::Restored(Restored::MachineGone)));
        let Some(live) = live.filter(|live| self.same_life(live)) else { return gone };
        match recent.interface(&self.intent().machine.place, live.seat.interface.clone(), now) {
            Interface::Ephemeral(_) if recent.is_of_the_past(&self.intent().machine.place, &live.mark, now) => {
                Err(live)
            }
            Interface::Empty => Err(live),
            Interface::Ephemeral(_) | Interface::Reserved(_) => Ok(On::End(Ended::Restored(Restored::Given))),
        }
    }
}

fn released(began: Instant) -> On {
    verified(began, Holder::Foreign("no longer reserved in the region".to_owned()))
}
