//! Taking an address off a machine.

use std::time::Instant;

use super::{Actor, Deed, Done, Noted, told};
use crate::{
    allocation::decide::{
        Cut,
        facts::User,
        leaving,
        users::{self, Workload},
    },
    cloud::{Cloud, Detach, Holder, Verified, Whereabouts},
};

impl Actor {
    /// L2: labels off and taint on; the node's pods live; who came late is asked to go and waited for; cut; verify.
    pub(super) async fn detach(
        &self,
        deed: &Deed,
        cloud: &dyn Cloud,
        node: &str,
        order: &Detach,
        cut: Cut,
        noted: &mut Vec<Noted>,
    ) -> Done {
        let Deed { machine, allocation, left_by, taints, .. } = deed;
        match self.unlabel(node, machine, allocation, left_by.as_deref(), taints, noted).await {
            Done::Node(Some(written)) => self.nodes.wrote(*written),
            Done::Node(None) => {}
            Done::NodeFailed(why) => return Done::HeldBack(why),
            other => return other,
        }
        if let Some(held) = self.late_users(deed, node, cut, noted).await {
            return Done::HeldBack(held);
        }
        match cut {
            Cut::Never => self.look(deed, cloud).await,
            Cut::WhenUnused | Cut::Now => told(cloud.detach(order).await),
        }
    }

    /// Why the cut must wait, if it must.
    async fn late_users(&self, deed: &Deed, node: &str, cut: Cut, noted: &mut Vec<Noted>) -> Option<String> {
        if cut == Cut::Now {
            return None;
        }
        if cut == Cut::WhenUnused && deed.workload == Workload::Unknown {
            return Some("whether the workload exists cannot be read now".to_owned());
        }
        let pods = match self.pods.live(node).await {
            Ok(pods) => pods,
            Err(_) if cut == Cut::Never => return None,
            Err(why) => return Some(why),
        };
        let users: Vec<User> = users::users(&pods, &deed.workload)
            .into_iter()
            .filter(|user| deed.cause.is_none_or(|cause| leaving::keeps(cause, user, deed.evict)))
            .collect();
        let staying: Vec<User> =
            users.iter().filter(|user| user.terminating_until.is_none() && !user.hold).cloned().collect();
        if deed.evict || cut == Cut::Never {
            let asked = self.ask_all(&staying).await;
            noted.extend(asked.into_iter().map(|(user, asked)| Noted::Asked(Box::new(user), asked)));
        }
        match users.first() {
            Some(user) if cut == Cut::WhenUnused => Some(format!(
                "waits for {} pod{} on node {node} that came late: {}",
                users.len(),
                if users.len() == 1 { "" } else { "s" },
                user.name
            )),
            Some(_) | None => None,
        }
    }

    /// Where it is now, by id: nothing was cut.
    async fn look(&self, deed: &Deed, cloud: &dyn Cloud) -> Done {
        let began = Instant::now();
        match cloud.find(&deed.scope, deed.ip).await {
            Ok(Whereabouts::Here(reservation)) => Done::Verified(Verified::read(began, reservation.holder)),
            Ok(Whereabouts::OtherRegion(_) | Whereabouts::NotFound) => {
                Done::Verified(Verified::read(began, Holder::Free))
            }
            Err(error) => Done::Failed(error),
        }
    }
}
