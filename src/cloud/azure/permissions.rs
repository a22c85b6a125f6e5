//! What the credentials may do with a thing, as the cloud lists it. Azure has no dry run.
//!
//! The list needs no right of its own. It does not show deny assignments, nor locks: those are met at the first write.

use serde_json::Value;
use url::Url;

use super::Azure;
use crate::cloud::CloudError;

const PERMISSIONS: &str = "permissions.list";
const VERSION: &str = "2022-04-01";

/// What the assigned roles permit on a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permitted(Vec<Role>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Role {
    actions: Vec<String>,
    not_actions: Vec<String>,
}

impl Azure {
    /// Of a resource group or of a resource, by its path.
    pub(super) async fn permitted(&self, path: &str) -> Result<Permitted, CloudError> {
        let mut permitted = Permitted::default();
        let path = format!("{path}/providers/Microsoft.Authorization/permissions");
        let mut next = Some(self.url(&path, VERSION));
        while let Some(url) = next {
            let (_, body) = self.get_json(PERMISSIONS, url.clone()).await?;
            permitted.add(&body);
            let link = body.get("nextLink").and_then(Value::as_str);
            // A link to itself would never end.
            next = link.and_then(|link| Url::parse(link).ok()).filter(|next| *next != url);
        }
        Ok(permitted)
    }
}

impl Permitted {
    pub(super) fn add(&mut self, body: &Value) {
        let words = |role: &Value, name: &str| {
            let listed = role.get(name).and_then(Value::as_array).into_iter().flatten();
            listed.filter_map(|word| Some(word.as_str()?.to_lowercase())).collect()
        };
        let roles = body.get("value").and_then(Value::as_array).into_iter().flatten();
        self.0
            .extend(roles.map(|role| Role { actions: words(role, "actions"), not_actions: words(role, "notActions") }));
    }

    /// Each role grants what it names less what it excludes; another role may grant that again.
    pub fn grants(&self, action: &str) -> bool {
        let action = action.to_lowercase();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, &action));
        self.0.iter().any(|role| any(&role.actions) && !any(&role.not_actions))
    }
}

/// `*` stands for any text, slashes included.
fn fits(pattern: &str, action: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == action };
    let Some(mut left) = action.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn permitted(value: Value) -> Permitted {
        let mut permitted = Permitted::default();
        permitted.add(&json!({"value": value}));
        permitted
    }

    #[test]
    fn a_pattern_fits_whole_actions_in_any_case() {
        let write = "microsoft.network/networkinterfaces/write";
        for pattern in
            ["*", "microsoft.network/*", "microsoft.network/networkinterfaces/*", "*/write", "microsoft.*/write", write]
        {
            assert!(fits(pattern, write), "{pattern}");
        }
        for pattern in ["*/read", "microsoft.network/", "microsoft.compute/*", "microsoft.network/*/read", ""] {
            assert!(!fits(pattern, write), "{pattern}");
        }
    }

    #[test]
    fn what_one_role_excludes_another_may_grant() {
        let contributor = json!({"actions": ["*"], "notActions": ["Microsoft.Network/networkInterfaces/*"]});
        let alone = permitted(json!([contributor]));
        assert!(alone.grants("Microsoft.Compute/virtualMachines/read"));
        assert!(!alone.grants("Microsoft.Network/networkInterfaces/write"));
        let operator = json!({"actions": ["microsoft.network/NETWORKINTERFACES/write"]});
        assert!(permitted(json!([contributor, operator])).grants("Microsoft.Network/networkInterfaces/write"));
        assert!(!permitted(json!([])).grants("Microsoft.Compute/virtualMachines/read"));
    }
}
