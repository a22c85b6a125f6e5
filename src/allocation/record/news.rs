//! How much of what a pass would write is new; [`super::cadence`] says for how long that may go unwritten. Pure.
//!
//! Every status write is a write of the whole object, which goes to everybody who watches it. So what is about to be overtaken
//! (a sentence of a step that takes milliseconds), and what is only counted, rides along with the next write that is needed
//! anyway, or is written by itself if it lasts.

use crate::{
    allocation::decide::state::Reason,
    api::{AddressStatus, Condition, NetIPAllocationStatus},
};

/// The most that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    Nothing,
    /// How many nodes are selected and spare: in a rolling drain they change with every node, for every allocation of the pool,
    /// and who wants to know before a drain asks `kubectl nia plan`, which counts anew. And that a debt is paid: whoever pays it
    /// again finds that out.
    Counts,
    /// Sentences and plans, a step whose next one is about to be known, and that all is well where nothing was known: of a new
    /// allocation that is found out just before it may begin, and would be one of the two writes of that second.
    Words,
    /// A state, a reason, an intent, a condition: at once.
    Facts,
}

impl News {
    /// Of one status after another.
    pub fn of(before: Option<&NetIPAllocationStatus>, after: &NetIPAllocationStatus) -> Self {
        match before {
            Some(before) if before == after => News::Nothing,
            Some(before) => {
                let counted = counted_as(before, after);
                if *before == counted {
                    News::Counts
                } else if unworded(before.clone()) == unworded(good_as(before, counted)) {
                    News::Words
                } else {
                    News::Facts
                }
            }
            None => News::Facts,
        }
    }
}

/// `after` with the counts, and with the debts that are paid, of `before`.
fn counted_as(before: &NetIPAllocationStatus, after: &NetIPAllocationStatus) -> NetIPAllocationStatus {
    let paid = after.owed.iter().all(|debt| before.owed.contains(debt));
    NetIPAllocationStatus {
        selected_node_count: before.selected_node_count,
        spare_node_count: before.spare_node_count,
        owed: if paid { before.owed.clone() } else { after.owed.clone() },
        ..after.clone()
    }
}

/// `after` with those conditions of `before` of which nothing was known, and which are well by now. Whoever waits for Ready
/// waits for good news.
fn good_as(before: &NetIPAllocationStatus, mut after: NetIPAllocationStatus) -> NetIPAllocationStatus {
    for now in after.conditions.iter_mut().filter(|now| now.type_ != "Ready" && now.status == "True") {
        let unknown = before.conditions.iter().find(|then| {
            then.type_ == now.type_ && then.status == "Unknown" && then.observed_generation == now.observed_generation
        });
        if let Some(then) = unknown {
            now.clone_from(then);
        }
    }
    after
}

fn unworded(mut status: NetIPAllocationStatus) -> NetIPAllocationStatus {
    for AddressStatus { message, planned_node, reason, .. } in &mut status.addresses {
        *message = None;
        // Where a person asked for it to go stands nowhere else.
        if reason.as_deref() != Some(Reason::MoveRequested.as_str()) {
            *planned_node = None;
        }
    }
    for Condition { message, .. } in &mut status.conditions {
        message.clear();
    }
    status
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::OwedStatus;

    fn status() -> NetIPAllocationStatus {
        let address = AddressStatus {
            ip: "203.0.113.7".into(),
            state: "Draining".into(),
            reason: Some("NodeCordoned".into()),
            message: Some("nobody uses it on node a".into()),
            ..AddressStatus::default()
        };
        let ready = Condition {
            type_: "Ready".into(),
            status: "True".into(),
            observed_generation: Some(1),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            reason: "Draining".into(),
            message: "203.0.113.7 nobody uses it on node a".into(),
        };
        NetIPAllocationStatus {
            addresses: vec![address],
            conditions: vec![ready],
            owed: vec![OwedStatus::default()],
            spare_node_count: 2,
            ..NetIPAllocationStatus::default()
        }
    }

    fn news(change: impl FnOnce(&mut NetIPAllocationStatus)) -> News {
        let mut after = status();
        change(&mut after);
        News::of(Some(&status()), &after)
    }

    #[test]
    fn a_sentence_may_wait_for_a_moment_and_a_count_for_longer() {
        let words = news(|status| {
            status.addresses[0].message = Some("waits for its turn".into());
            status.conditions[0].message = "203.0.113.7 waits for its turn".into();
            status.spare_node_count = 1;
        });
        assert_eq!(words, News::Words);
        assert_eq!(news(|status| status.spare_node_count = 1), News::Counts);
        assert_eq!(news(|status| status.owed.clear()), News::Counts, "a debt is paid");
        assert_eq!(news(|_| ()), News::Nothing);
    }

    #[test]
    fn that_all_is_well_where_nothing_was_known_may_wait_and_that_it_is_not_or_is_ready_again_may_not() {
        let turns = |kind: &str, from: &str, to: &str| {
            let (mut before, mut after) = (status(), status());
            for (status, word) in [(&mut before, from), (&mut after, to)] {
                status.conditions[0].type_ = kind.into();
                status.conditions[0].status = word.into();
                status.conditions[0].reason = word.into();
            }
            News::of(Some(&before), &after)
        };
        assert_eq!(turns("CredentialsValid", "Unknown", "True"), News::Words);
        assert_eq!(turns("CredentialsValid", "Unknown", "False"), News::Facts);
        assert_eq!(turns("CredentialsValid", "False", "True"), News::Facts);
        assert_eq!(turns("CredentialsValid", "True", "Unknown"), News::Facts);
        assert_eq!(turns("Ready", "Unknown", "True"), News::Facts);
    }

    #[test]
    fn a_plan_may_wait_but_for_the_one_that_a_person_made() {
        assert_eq!(news(|status| status.addresses[0].planned_node = Some("b".into())), News::Words);
        let (mut before, mut after) = (status(), status());
        for status in [&mut before, &mut after] {
            status.addresses[0].reason = Some("MoveRequested".into());
        }
        after.addresses[0].planned_node = Some("b".into());
        assert_eq!(News::of(Some(&before), &after), News::Facts);
    }

    #[test]
    fn whatever_else_is_said_is_said_at_once() {
        let changes: [fn(&mut NetIPAllocationStatus); 6] = [
            |status| status.owed[0].operation_id = Some("017f22e2-79b0-7cc3-98c4-dc0c0c07398f".into()),
            |status| status.addresses[0].reason = Some("Retrying".into()),
            |status| status.addresses.clear(),
            |status| status.conditions[0].reason = "AllAttached".into(),
            |status| status.attached_count = 1,
            |status| status.observed_generation = Some(2),
        ];
        for change in changes {
            assert_eq!(news(change), News::Facts);
        }
        assert_eq!(News::of(None, &status()), News::Facts, "the first status of all");
    }
}
