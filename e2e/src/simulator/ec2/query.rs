//! The form in a request's body, and the filters in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, errors::Trouble};
use crate::simulator::wire::decode;

/// Parameters of a request by name, for example `Filter.1.Value.2`.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

/// All filters of a request: each must be met by one of its values.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

/// The most values that one request's filters may have.
const VALUES: usize = 200;

impl Query {
    pub fn parse(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (plain(name), plain(value))
                })
                .collect(),
        )
    }

    /// What is empty is not there.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn required(&self, name: &str) -> Result<&str, Trouble> {
        self.text(name).ok_or_else(|| {
            Trouble::new(400, "MissingParameter", &format!("The request must contain the parameter {name}"))
        })
    }

    pub fn flag(&self, name: &str, unsaid: bool) -> Result<bool, Trouble> {
        match self.text(name) {
            None => Ok(unsaid),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(Trouble::invalid(name, other)),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<usize>, Trouble> {
        self.text(name).map(|text| text.parse().map_err(|_| Trouble::invalid(name, text))).transpose()
    }

    /// A parameter that the action does not read.
    pub fn unread(&self, action: &Action) -> Option<String> {
        let known = |name: &str| {
            let first = name.split('.').next().unwrap_or_default();
            ["Action", "Version"].contains(&name) || action.reads.contains(&first)
        };
        self.0.keys().find(|name| !known(name)).cloned()
    }

    pub fn filters(&self, action: &Action) -> Result<Filters, Trouble> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut values = 0_usize;
        for (name, text) in &self.0 {
            let parts: Vec<&str> = name.split('.').collect();
            match parts.as_slice() {
                ["Filter", number, "Value", _] => {
                    let name = self.required(&format!("Filter.{number}.Name"))?;
                    if !action.filters.contains(&name) {
                        return Err(Trouble::invalid("filter", name));
                    }
                    values = values.saturating_add(1);
                    found.entry(name.to_owned()).or_default().insert(text.clone());
                }
                ["Filter", number, "Name"] => {
                    self.required(&format!("Filter.{number}.Value.1"))?;
                }
                ["Filter", ..] => return Err(Trouble::unknown_parameter(action, name)),
                _ => {}
            }
        }
        if values > VALUES {
            let message = format!("The maximum number of filter values specified on a single call is {VALUES}");
            return Err(Trouble::new(400, "FilterLimitExceeded", &message));
        }
        Ok(Filters(found))
    }
}

impl Filters {
    /// Whether a thing with these values passes.
    pub fn passes(&self, value_of: impl Fn(&str) -> Option<String>) -> bool {
        self.0.iter().all(|(name, wanted)| value_of(name).is_some_and(|value| wanted.contains(&value)))
    }

    /// For the log: what is asked for, or all.
    pub fn target(&self, what: &str) -> String {
        let values: Vec<&str> = self.0.values().flatten().map(String::as_str).collect();
        if values.is_empty() { what.to_owned() } else { format!("{what}/{}", values.join(",")) }
    }
}

fn plain(text: &str) -> String {
    decode(&text.replace('+', " "))
}
