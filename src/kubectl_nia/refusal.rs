//! Why nothing was done: one sentence that says what is wrong and what to do, and an exit code that scripts can go by.

use kube::Error;

/// How the program ends. The list of `docs/kubectl-nia.md`, held equal by a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    Usage,
    Unknown,
    Refused,
    Forbidden,
    NotInstalled,
    TimedOut,
    Stranded,
    Interrupted,
}

impl Exit {
    /// Every one, in the order of their codes.
    pub const ALL: [Exit; 10] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Unknown,
        Exit::Refused,
        Exit::Forbidden,
        Exit::NotInstalled,
        Exit::TimedOut,
        Exit::Stranded,
        Exit::Interrupted,
    ];

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
            Exit::Refused => 4,
            Exit::Forbidden => 5,
            Exit::NotInstalled => 6,
            Exit::TimedOut => 7,
            Exit::Stranded => 8,
            // As a shell has it for SIGINT.
            Exit::Interrupted => 130,
        }
    }

    /// What it says.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "the cluster cannot be reached, or did not do what it was asked",
            Exit::Usage => "the command line cannot be understood",
            Exit::Unknown => "no such address, node or allocation",
            Exit::Refused => "it cannot be done as things are",
            Exit::Forbidden => "a right is missing",
            Exit::NotInstalled => "no CRD, no operator that answers, or one that is too old",
            Exit::TimedOut => "not done in time; what has begun goes on",
            Exit::Stranded => "by the plan an address would have no fitting node, or stay on one that it must leave",
            Exit::Interrupted => "interrupted; what has begun goes on",
        }
    }
}

const OVERTAKEN: &str = "the allocation has changed in this moment and nothing was written; try again";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    pub exit: Exit,
    /// Empty where everything has been said.
    pub sentence: String,
}

impl Refusal {
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }

    /// Whoever read the output has gone: nothing is left to say.
    pub fn unheard() -> Self {
        Self::new(Exit::Done, "")
    }

    /// What the API server answered to `verb` on `kind`.
    pub fn of(verb: &str, kind: &Kind<'_>, error: &Error) -> Self {
        let Error::Api(status) = error else {
            return Self::new(Exit::Failed, format!("the cluster cannot be asked to {verb} {kind}: {}", causes(error)));
        };
        let said = one_line(&status.message);
        match status.code {
            401 => Self::new(
                Exit::Forbidden,
                "the cluster does not accept your credentials; log in again, or choose another --context",
            ),
            403 if is_missing_right(&said) && said.contains(&format!("cannot {verb} resource")) => {
                Self::forbidden(verb, kind)
            }
            // Another right than that of the verb, for example to impersonate.
            403 if is_missing_right(&said) => {
                Self::new(Exit::Forbidden, format!("the cluster does not let you {verb} {kind}: {said}"))
            }
            404 if *kind == NETIPALLOCATIONS && verb == "list" => Self::new(
                Exit::NotInstalled,
                "this cluster does not know NetIPAllocations; install the operator's chart, or choose another --context",
            ),
            409 => Self::new(Exit::Refused, OVERTAKEN),
            // Not a right that is missing: the schema, a policy or a webhook says why.
            400 | 403 | 422 => Self::new(Exit::Refused, format!("the cluster does not let you {verb} {kind}: {said}")),
            _ => Self::new(Exit::Failed, format!("the cluster refused to {verb} {kind}: {said}")),
        }
    }

    /// Somebody else has written in the same moment: judged anew, the same may be done.
    pub fn is_overtaken(&self) -> bool {
        self.sentence == OVERTAKEN
    }

    /// The right that is missing, by name.
    pub fn forbidden(verb: &str, kind: &Kind<'_>) -> Self {
        let group = match kind.group {
            "" => String::new(),
            group => format!(" of API group {group}"),
        };
        let place = match kind.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "for the whole cluster".to_owned(),
        };
        Self::new(
            Exit::Forbidden,
            format!(
                "you may not {verb} {kind}; ask your administrator for verb \"{verb}\" on resource \"{}\"{group} {place}",
                kind.plural
            ),
        )
    }
}

/// The form in which the API server's authorizers deny; what admission says has none of a user.
fn is_missing_right(said: &str) -> bool {
    said.contains("is forbidden: User \"") && said.contains(" cannot ")
}

/// Whether the same may succeed in a moment: nobody answered, or whoever did had no time for it.
pub fn is_transient(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// What others wrote, with its lines joined.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The whole chain: a client's own text often says no more than that it failed.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    one_line(&text)
}

/// What a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub namespace: Option<&'a str>,
}

impl std::fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.plural)
    }
}

pub const NETIPALLOCATIONS: Kind<'static> =
    Kind { group: crate::api::GROUP, plural: "netipallocations", namespace: None };
pub const NODES: Kind<'static> = Kind { group: "", plural: "nodes", namespace: None };
pub const PODS: Kind<'static> = Kind { group: "", plural: "pods", namespace: None };
pub const REPLICASETS: Kind<'static> = Kind { group: "apps", plural: "replicasets", namespace: None };
pub const LEASES: Kind<'static> = Kind { group: "coordination.k8s.io", plural: "leases", namespace: None };
/// Where the API server keeps the events of objects that are in no namespace.
pub const EVENTS: Kind<'static> = Kind { group: "", plural: "events", namespace: Some("default") };

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16, message: &str) -> Error {
        Error::Api(Box::new(Status { code, message: message.to_owned(), ..Status::default() }))
    }

    #[test]
    fn a_missing_right_is_named_with_verb_resource_and_place() {
        let said = r#"events is forbidden: User "ann" cannot list resource "events" in API group "" in the namespace "default""#;
        let refusal = Refusal::of("list", &EVENTS, &answered(403, said));
        assert_eq!(refusal.exit, Exit::Forbidden);
        assert_eq!(
            refusal.sentence,
            "you may not list events; ask your administrator for verb \"list\" on resource \"events\" in namespace default"
        );
        let said = r#"x is forbidden: User "ann" cannot patch resource "netipallocations""#;
        let sentence = Refusal::of("patch", &NETIPALLOCATIONS, &answered(403, said)).sentence;
        assert!(sentence.ends_with("of API group netinfra.darkbrains.com for the whole cluster"), "{sentence}");
    }

    #[test]
    fn what_policies_and_webhooks_say_is_passed_on_in_one_line_and_is_no_missing_right() {
        for (code, said) in [
            (
                403,
                "netipallocations \"voip\" is forbidden: ValidatingAdmissionPolicy 'p' denied request:\nyou cannot patch it",
            ),
            (422, "admission webhook \"w\" denied the request:\n- no"),
            (400, "admission webhook \"w\" denied the request: no"),
        ] {
            let refusal = Refusal::of("patch", &NETIPALLOCATIONS, &answered(code, said));
            assert_eq!(refusal.exit, Exit::Refused, "{refusal}");
            assert!(refusal.sentence.ends_with(&one_line(said)) && refusal.sentence.lines().count() == 1, "{refusal}");
        }
    }

    #[test]
    fn another_right_than_that_of_the_verb_is_passed_on_as_it_was_said() {
        let said = r#"users "bob" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#;
        let refusal = Refusal::of("list", &NODES, &answered(403, said));
        assert_eq!(refusal.exit, Exit::Forbidden);
        assert!(refusal.sentence.ends_with(said), "{refusal}");
    }

    #[test]
    fn what_may_succeed_in_a_moment_is_told_from_what_will_not() {
        assert!([429, 500, 503].iter().all(|code| is_transient(&answered(*code, ""))));
        assert!([400, 401, 403, 404, 409, 422].iter().all(|code| !is_transient(&answered(*code, ""))));
    }

    #[test]
    fn a_cluster_without_the_crd_is_told_from_an_object_that_is_not_there() {
        let absent = answered(404, "404 page not found");
        assert_eq!(Refusal::of("list", &NETIPALLOCATIONS, &absent).exit, Exit::NotInstalled);
        assert_eq!(Refusal::of("patch", &NETIPALLOCATIONS, &absent).exit, Exit::Failed);
        let overtaken = Refusal::of("patch", &NETIPALLOCATIONS, &answered(409, "modified"));
        assert!(overtaken.exit == Exit::Refused && overtaken.is_overtaken(), "{overtaken}");
    }

    #[test]
    fn the_exit_codes_are_those_of_the_page() {
        let page = include_str!("../../docs/kubectl-nia.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(page.contains(&row), "docs/kubectl-nia.md lacks: {row}");
        }
    }
}
