//! The lives of `tests/scenarios/`, played in the whole world: what people, nodes and machines do there happens, and what
//! calls answer is left to the world, or to whoever breaks it.

use std::{fs, net::IpAddr, path::Path, time::Duration, time::Instant};

use ip_address_controller::{
    allocation::decide::users::{Owner, Pod},
    api,
    cloud::Provider,
};
use serde_json::json;

use crate::cosmos::{
    course::{Action, Cosmos, Outside, pod},
    process::{DISRUPTION, Rules},
};

/// One life: what happens, in groups between which the operator looks.
#[derive(Clone, Debug)]
pub struct Story {
    pub title: String,
    pub groups: Vec<Vec<String>>,
}

/// Every life of every file.
pub fn all() -> Vec<Story> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| parse(&fs::read_to_string(file).unwrap())).collect()
}

fn parse(text: &str) -> Vec<Story> {
    let mut stories: Vec<Story> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            stories.push(Story { title: title.to_owned(), groups: Vec::new() });
            open = false;
            continue;
        }
        let story = stories.last_mut().unwrap();
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match keyword {
            "given" | "when" => {
                if !std::mem::replace(&mut open, true) {
                    story.groups.push(Vec::new());
                }
                let said = rest.trim().split(", ").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
                story.groups.last_mut().unwrap().extend(said);
            }
            "then" => open = false,
            _ => {}
        }
    }
    stories
}

/// The address of all lives.
pub fn ip() -> IpAddr {
    IpAddr::from([203, 0, 113, 7])
}

const NAME: &str = "red";

/// A world in which a story plays, and how it reads the story's sentences.
#[derive(Clone)]
pub struct Stage {
    pub cosmos: Cosmos,
    /// The cloud cannot be read.
    pub blind: bool,
}

impl Stage {
    pub fn new(kind: Provider) -> Self {
        Self { cosmos: Cosmos::new(kind, 2, Rules::default(), Instant::now()), blind: false }
    }

    fn has(&self, node: &str) -> bool {
        self.cosmos.names.contains_key(node)
    }

    fn node(&mut self, node: &str) {
        if !self.has(node) {
            let own = self.cosmos.cloud.kind() != Provider::Azure;
            self.cosmos.node(node, own);
        }
    }

    fn outside(&mut self, outside: Outside) -> Result<(), String> {
        self.cosmos.happen(&Action::Outside(outside))
    }

    /// The node that has the address, or node-a.
    fn here(&self) -> String {
        let place = self.cosmos.cloud.on(ip());
        let mut names = self.cosmos.names.iter();
        let on = names.find(|(_, named)| Some(*named) == place.as_ref()).map(|(name, _)| name.clone());
        on.unwrap_or_else(|| "node-a".to_owned())
    }

    fn pods(&self) -> Vec<String> {
        let node = self.here();
        self.cosmos.cluster.pods_of(&node).into_iter().map(|pod| pod.uid).collect()
    }

    fn pod(&mut self, kind: &str) {
        let node = self.here();
        let name = format!("kamailio-{}", self.cosmos.cluster.pods().values().flatten().count());
        let owner = Some(Owner { kind: kind.to_owned(), name: "kamailio".to_owned() });
        let made = Pod { owner, returns: kind == "DaemonSet", ..pod(&name) };
        let _ = self.cosmos.cluster.start_pod(&node, made);
    }

    /// What a sentence says of the world; one that tells of the operator's own calls or tables says nothing of it.
    pub fn happens(&mut self, sentence: &str) -> Result<(), String> {
        let words: Vec<&str> = sentence.split(' ').collect();
        let by_itself = matches!(
            words.as_slice(),
            ["Unassigned"] | ["Attached", "on", _] | ["the", "operator", "restarts"] | [_, "seconds", "pass"]
        );
        self.cosmos.meddled |= !by_itself;
        let node = |name: &str| name.to_owned();
        match words.as_slice() {
            ["Unassigned"] => {
                self.cosmos.allocate(NAME, &[ip()], json!({}));
                Ok(())
            }
            ["Attached", "on", name] => {
                self.node(name);
                self.cosmos.allocate(NAME, &[ip()], json!({}));
                self.cosmos.run_on(Duration::from_secs(60))
            }
            ["an", "Attached", "entry", "without", "a", "node"] => {
                self.happens("Attached on node-a")?;
                self.cosmos.excuse_an_edit(NAME);
                let _ = self.cosmos.cluster.edit_status(NAME, |status| status.addresses[0].node = None);
                Ok(())
            }
            ["its", "operation", "is", "missing"] => {
                self.cosmos.excuse_an_edit(NAME);
                let _ = self.cosmos.cluster.edit_status(NAME, |status| {
                    status.addresses.iter_mut().for_each(|entry| entry.operation = None);
                });
                Ok(())
            }
            [n, "pod" | "pods"] => {
                (0..n.parse().unwrap_or(1)).for_each(|_| self.pod("Deployment"));
                Ok(())
            }
            [n, kind @ ("Deployment" | "StatefulSet" | "DaemonSet"), "pod" | "pods"] => {
                (0..n.parse().unwrap_or(1)).for_each(|_| self.pod(kind));
                Ok(())
            }
            ["pods", "are", "gone"] => self.each_pod(Outside::EndPod),
            ["the" | "a", "pod", "holds"] => self.each_pod(|uid| Outside::Hold(uid, true)),
            ["the", "pod", "holds", "no", "more"] => self.each_pod(|uid| Outside::Hold(uid, false)),
            ["the", "pod", "is", "not", "Ready"] => {
                for uid in self.pods() {
                    let _ = self.cosmos.cluster.set_pod_ready(&uid, false);
                }
                Ok(())
            }
            ["the", "pod", "terminates"] => {
                let now = self.cosmos.now;
                for uid in self.pods() {
                    self.cosmos.cluster.evict(&uid, now);
                }
                Ok(())
            }
            ["the", "PodDisruptionBudget", "refuses"] => {
                let pods = self.pods();
                self.cosmos.cluster.guarded.extend(pods);
                Ok(())
            }
            [name, "is", "cordoned"] => self.outside(Outside::Cordon(node(name))),
            [name, "is", "uncordoned"] => self.outside(Outside::Uncordon(node(name))),
            [name, "is", "disrupted"] => self.outside(Outside::Taint(node(name), DISRUPTION.to_owned())),
            [name, "is", "disrupted", "no", "more"] => {
                self.outside(Outside::Untaint(node(name), DISRUPTION.to_owned()))
            }
            [name, "is", "selected", "no", "more"] => self.outside(Outside::Deselect(node(name))),
            [name, "is", "selected", "again"] => self.outside(Outside::Select(node(name))),
            [name, "is", "NotReady", ..] => self.outside(Outside::NotReady(node(name))),
            [name, "is", "Ready"] => {
                self.node(name);
                self.outside(Outside::Ready(node(name)))
            }
            [name, "is", "out", "of", "service"] => {
                self.outside(Outside::Taint(node(name), "node.kubernetes.io/out-of-service".to_owned()))
            }
            ["the", "object", "of", name, "is", "gone"] => self.outside(Outside::DeleteNode(node(name))),
            ["the", "object", "of", name, "is", "back"] => self.outside(Outside::Rejoin(node(name))),
            ["the", "machine", "of", name, "is", "gone"] => {
                self.outside(Outside::VanishMachine(node(name)))?;
                self.outside(Outside::NotReady(node(name)))
            }
            ["the", "machine", "of", name, "is", "stopped"] => {
                self.outside(Outside::StopMachine(node(name)))?;
                self.outside(Outside::NotReady(node(name)))
            }
            ["the", "machine", "of", name, "is", "replaced"] => self.outside(Outside::ReplaceMachine(node(name))),
            ["the", "machine", "of", name, "runs"] => {
                self.outside(Outside::StartMachine(node(name)))?;
                self.outside(Outside::Ready(node(name)))
            }
            ["the", "labels", "of", name, "are", "off" | "wrong"] => self.outside(Outside::Unlabel(node(name))),
            ["target", "none"] => Ok(()),
            ["target", name, ..] => {
                self.node(name);
                Ok(())
            }
            ["it", "is", "read" | "surveyed", "free"] => self.outside(Outside::OutsiderDetaches(ip())),
            ["it", "is", "read" | "surveyed", "on", "a", "stranger"] => {
                if !self.has("stranger") {
                    self.cosmos.node("stranger", false);
                    self.cosmos.cluster.delete_node("stranger");
                }
                self.outside(Outside::OutsiderAttaches(ip(), "stranger".to_owned()))
            }
            ["it", "is", "read", "on", "a", "load", "balancer"] => {
                self.outside(Outside::OutsiderDetaches(ip()))?;
                self.cosmos.cloud.outsider_takes(ip());
                Ok(())
            }
            ["it", "is", "read" | "surveyed", "on", name] => {
                self.node(name);
                self.outside(Outside::OutsiderAttaches(ip(), node(name)))
            }
            ["it", "is", "not", "found"] => {
                self.outside(Outside::OutsiderDetaches(ip()))?;
                self.cosmos.cloud.release(ip());
                Ok(())
            }
            ["it", "cannot", "be", "read"] => {
                self.blind = true;
                Ok(())
            }
            ["it", "can", "be", "read"] => {
                self.blind = false;
                Ok(())
            }
            ["it", "is", "removed", "from", "the", "spec"] | ["it", "is", "matched", "no", "more"] => {
                self.outside(Outside::Remove(NAME.to_owned(), ip()))
            }
            ["it", "is", "wanted", "again"] => self.outside(Outside::Add(NAME.to_owned(), ip())),
            ["the", "allocation", "is", "deleted"] => self.outside(Outside::Delete(NAME.to_owned())),
            ["deletionPolicy", "is", "Retain"] => self.outside(Outside::Retain(NAME.to_owned())),
            ["a", "move", "is", "asked", "for"] => self.outside(Outside::Move(NAME.to_owned(), ip())),
            ["the", "annotation", "is", "removed"] => {
                let _ = self.cosmos.cluster.annotate(NAME, api::MOVE_ANNOTATION, None);
                Ok(())
            }
            ["the", "move", "is", "taken", "back"] => {
                let stay = format!("{}=node-a", ip());
                let _ = self.cosmos.cluster.annotate(NAME, api::MOVE_ANNOTATION, Some(&stay));
                Ok(())
            }
            ["claimed", "by", "older"] => {
                self.cosmos.allocate("older", &[ip()], json!({}));
                Ok(())
            }
            ["claimed", "by", "older", "which", "has", "it", "there", "too"] => {
                self.cosmos.allocate("older", &[ip()], json!({}));
                self.outside(Outside::CopyStatus(NAME.to_owned(), "older".to_owned()))
            }
            ["mode", mode] => {
                let mode = serde_json::from_value(json!(mode)).unwrap();
                self.outside(Outside::Mode(NAME.to_owned(), mode))
            }
            ["policy", policy] => {
                let policy: api::DrainPolicy = serde_json::from_value(json!(policy)).unwrap();
                let _ = self.cosmos.cluster.edit(NAME, |spec| spec.drain.policy = policy);
                Ok(())
            }
            ["drain", "timeout", n, "seconds"] => {
                let seconds = n.parse().unwrap();
                let _ = self.cosmos.cluster.edit(NAME, |spec| spec.drain.timeout_seconds = Some(seconds));
                Ok(())
            }
            ["the", "operator", "restarts"] => {
                let leader = self.cosmos.leader().map(|process| process.id);
                leader.map_or(Ok(()), |id| self.cosmos.happen(&Action::Crash(id)))
            }
            [_, "seconds", "pass"] => Ok(()),
            _ if WITHIN.iter().any(|within| words.join(" ").starts_with(within)) => Ok(()),
            _ => panic!("no story can be made of: {sentence}"),
        }
    }

    /// How long the life waits after this sentence.
    pub fn waits(sentence: &str) -> Duration {
        match sentence.split(' ').collect::<Vec<_>>().as_slice() {
            [n, "seconds", "pass"] => Duration::from_secs(n.parse().unwrap()),
            _ => Duration::ZERO,
        }
    }

    fn each_pod(&mut self, act: impl Fn(String) -> Outside) -> Result<(), String> {
        self.pods().into_iter().try_for_each(|uid| self.outside(act(uid)))
    }
}

/// Sentences about the operator itself: its calls, tables and facts. The world answers those by itself here.
const WITHIN: &[&str] = &[
    "the labels are",
    "the attach",
    "the detach",
    "the patch",
    "the pods are asked",
    "the request does not leave",
    "it lands late",
    "pods are",
    "no permit",
    "a permit",
    "too many in motion",
    "its turn comes",
    "failover is",
    "no finalizer",
    "the finalizer is set",
    "node-a has nothing of its own",
    // The world's allocations have no nodeTaint.
    "node-a is tainted",
    "the machine of",
    "nobody can be asked",
    "its read is on its way",
    "it is in another region",
];
