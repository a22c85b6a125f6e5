//! The controller. One pass over one allocation is five steps:
//!
//! ```text
//! watch ─▶ observe ─▶ decide (pure) ─▶ record (intent before deed) ─▶ act (beside the reconciler)
//! ```
//!
//! Knows Kubernetes and [`crate::cloud::Cloud`]; knows no SDK.

pub mod act;
#[cfg(test)]
pub(crate) mod api_server;
pub mod claims;
pub mod decide;
pub mod journey;
pub mod ledger;
pub mod memory;
pub mod moment;
pub mod observe;
pub mod owed;
mod pass;
pub mod record;
mod release;
pub mod round;
pub mod selection;
pub mod stray;
pub mod tables;
mod tainting;
pub mod taints;
pub mod watch;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{Api, Client};
use kube_runtime::reflector::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    act::Actor,
    claims::Claims,
    ledger::Ledger,
    moment::Moment,
    observe::{
        cloud_view::CloudView,
        nodes::{Nodes, Roster},
        pods::Pods,
    },
    record::{cadence::Cadence, tell::Teller},
    round::Wish,
    tables::Tables,
    watch::{Cause, Guarded, Wake},
};
use crate::{
    api::NetIPAllocation,
    cloud::{
        Provider,
        limits::{Allowance, Limits, Need, Urging},
    },
    lifecycle::Observer,
    metrics::Gauges,
};

/// Those who are told.
pub type Observers = Vec<Box<dyn Observer<decide::state::State>>>;

/// What the process is told about how to control.
#[derive(Clone, Debug)]
pub struct Config {
    /// Taints that say that a node is about to go.
    pub disruption_taints: Vec<String>,
    /// Every allocation is read as `mode: Observe`.
    pub observe_only: bool,
    /// Time-out of one mutation of the API server or a cloud.
    pub mutation_timeout: Duration,
    /// Only objects with these labels are ours.
    pub label_selector: Option<String>,
}

/// Everything that passes share. One per term of leadership: what it knows dies with it.
pub struct Controller {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) api: Api<NetIPAllocation>,
    pub(crate) actor: Actor,
    pub(crate) nodes: Nodes,
    pub(crate) pods: Pods,
    pub(crate) view: CloudView,
    pub(crate) ledger: Ledger,
    pub(crate) limits: Limits,
    pub(crate) teller: Teller,
    pub(crate) gauges: Gauges,
    pub(crate) observers: Observers,
    pub(crate) wake: Wake,
    pub(crate) allocations: Store<Guarded>,
    tables: Mutex<Tables>,
    permits: Mutex<Permits>,
    /// When this term began.
    began: Instant,
    running: Mutex<BTreeMap<Provider, usize>>,
    /// Effects under way; waited for at the end of the term (F6).
    pub(crate) effects: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// What was last said of objects that cannot be decoded, by name: said once per text.
    undecodable: Mutex<HashMap<String, String>>,
    /// Failed passes in a row, by object name.
    failures: Mutex<HashMap<String, u32>>,
    /// The last pass's claims.
    claimed: Mutex<Option<Claimed>>,
    /// Objects, by name, of which the last pass found nothing left to do.
    resting: Mutex<HashSet<String>>,
    /// When status is written, by object name.
    cadences: Mutex<HashMap<String, Cadence>>,
}

/// Claims, and what they were made of.
struct Claimed {
    /// Of the ledger.
    revision: u64,
    nodes: Arc<Roster>,
    claims: Arc<Claims>,
}

/// What a change of the cloud needs before its intent is written (F2).
struct Permit {
    /// Its tokens, and the slot that is kept until it has ended.
    allowance: Allowance,
    /// When it was got.
    since: Instant,
}

/// The permits of one allocation's addresses, and of the machines that it owes something.
type PermitsBySubject = HashMap<String, Permit>;

/// By name of the allocation, which outlives its uid in a wake that comes late.
#[derive(Default)]
struct Permits {
    /// Those that were waited for and not used yet.
    held: HashMap<String, PermitsBySubject>,
    /// Those that are waited for, by subject too.
    asked: HashMap<(String, String), Urging>,
}

/// What [`Controller::new`] is made of.
pub struct Parts {
    pub config: Config,
    pub client: Client,
    pub actor: Actor,
    pub nodes: Nodes,
    pub pods: Pods,
    pub view: CloudView,
    pub limits: Limits,
    pub teller: Teller,
    pub gauges: Gauges,
    pub observers: Observers,
    pub wake: Wake,
    pub allocations: Store<Guarded>,
    pub stop: CancellationToken,
}

impl Controller {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            client,
            actor,
            nodes,
            pods,
            view,
            limits,
            teller,
            gauges,
            observers,
            wake,
            allocations,
            stop,
        } = parts;
        Arc::new(Self {
            api: Api::all(client.clone()),
            ledger: Ledger::new(client.clone(), config.label_selector.clone()),
            tables: Mutex::new(Tables::new(std::time::Instant::now())),
            permits: Mutex::default(),
            began: Instant::now(),
            effects: TaskTracker::new(),
            running: Mutex::default(),
            undecodable: Mutex::default(),
            failures: Mutex::default(),
            claimed: Mutex::default(),
            resting: Mutex::default(),
            cadences: Mutex::default(),
            config,
            client,
            actor,
            nodes,
            pods,
            view,
            limits,
            teller,
            gauges,
            observers,
            wake,
            allocations,
            stop,
        })
    }

    /// Take-over (F6): every allocation read live, and its seats taken, before anything is decided.
    ///
    /// # Errors
    /// The API server's; to be tried again.
    pub async fn take_over(&self) -> Result<(), ledger::ReadError> {
        let all = self.ledger.take_over().await?;
        let mut tables = self.tables();
        let moment = Moment::here();
        for object in &all {
            round::inherit(&mut tables, object, &moment);
        }
        Ok(())
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the permits of an allocation for one pass, so that none comes or goes while it decides; what the pass does not
    /// use and still needs it puts back.
    fn take_permits(&self, name: &str) -> PermitsBySubject {
        self.permits().held.remove(name).unwrap_or_default()
    }

    /// Puts permits back that a next pass needs, as old as they are: one that nobody can use must not block a slot for ever.
    fn put_back(&self, name: &str, kept: PermitsBySubject) {
        if !kept.is_empty() {
            self.permits().held.entry(name.to_owned()).or_default().extend(kept);
        }
    }

    /// Gives back all that an allocation holds.
    fn return_permits(&self, name: &str) {
        self.permits().held.remove(name);
    }

    /// Gives back what no pass has used for long, so that an allocation whose passes fail blocks nobody.
    fn return_stale_permits(&self) {
        self.permits().held.retain(|_, permits| {
            permits.retain(|_, permit| permit.since.elapsed() < PERMIT_KEPT);
            !permits.is_empty()
        });
    }

    /// Waits beside the pass for the tokens of a change and a slot, given together by urgency; the allocation is woken when
    /// they are there. Asked again it is as urgent as whoever asks.
    fn ask_permit(self: &Arc<Self>, name: &str, wish: &Wish) {
        let Wish { subject, scope, change, urgency } = wish;
        let key = (name.to_owned(), subject.clone());
        let place = {
            let mut permits = self.permits();
            if let Some(waits) = permits.asked.get(&key) {
                waits.to(*urgency);
                return;
            }
            let need = Need::Change { requests: scope.provider.requests_of(*change) };
            let place = self.limits.join(scope, *urgency, name, need);
            permits.asked.insert(key.clone(), place.urging());
            place
        };
        let me = self.clone();
        tokio::spawn(async move {
            let got = me.stop.run_until_cancelled(place.served()).await;
            {
                let mut permits = me.permits();
                permits.asked.remove(&key);
                let (name, subject) = key.clone();
                if let Some(allowance) = got
                    && me.ledger.knows(&name)
                {
                    let permit = Permit { allowance, since: Instant::now() };
                    permits.held.entry(name).or_default().insert(subject, permit);
                }
            }
            me.wake.one(&key.0, Cause::Permit);
        });
    }

    /// Whether this error has not been told of this object yet.
    fn is_news(&self, name: &str, error: &str) -> bool {
        self.undecodable().insert(name.to_owned(), error.to_owned()).as_deref() != Some(error)
    }

    /// What was last told of objects that cannot be decoded, by name.
    fn undecodable(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.undecodable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, name: &str) -> u32 {
        let mut failures = self.failures();
        let so_often = failures.entry(name.to_owned()).or_default();
        *so_often = so_often.saturating_add(1);
        *so_often
    }

    /// Whether its last pass failed.
    fn has_failed(&self, name: &str) -> bool {
        self.failures().contains_key(name)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self) -> MutexGuard<'_, HashSet<String>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cadences(&self) -> MutexGuard<'_, HashMap<String, Cadence>> {
        self.cadences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, name: &str) {
        self.failures().remove(name);
    }

    /// Runs an effect beside the pass, counted while it is under way.
    fn run_effect(self: &Arc<Self>, provider: Provider, effect: impl Future<Output = ()> + Send + 'static) {
        let me = self.clone();
        self.effects.spawn(async move {
            *me.running().entry(provider).or_default() += 1;
            effect.await;
            if let Some(count) = me.running().get_mut(&provider) {
                *count -= 1;
            }
        });
    }

    /// Effects under way, by provider; of each that has had one.
    fn in_flight(&self) -> Vec<(Provider, usize)> {
        self.running().iter().map(|(provider, count)| (*provider, *count)).collect()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Provider, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no effect is under way, or `limit` is over.
    pub async fn drain_effects(&self, limit: Duration) -> bool {
        self.effects.close();
        tokio::time::timeout(limit, self.effects.wait()).await.is_ok()
    }
}

/// A permit that no pass has used for so long goes to somebody else.
const PERMIT_KEPT: Duration = Duration::from_secs(30);
