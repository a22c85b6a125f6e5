//! One network interface as the cloud showed it, and the one edit that we make of it. Pure.
//!
//! A write replaces the whole interface, and what is left out is reset. So the document stays as it came, in the cloud's
//! own fields, those included that no SDK knows.

use serde_json::{Value, json};

use super::{
    ids::{self, Id},
    translate::{self, Interface},
};

/// An interface with every field that it has.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub view: Interface,
    /// What a write is conditional on.
    pub etag: String,
    body: Value,
}

impl Document {
    /// `None` for a document without id or etag: it could not be written back safely.
    pub fn new(body: Value) -> Option<Self> {
        let view = translate::interface(&serde_json::from_value(body.clone()).ok()?)?;
        let etag = body.get("etag")?.as_str().filter(|etag| !etag.is_empty())?.to_owned();
        Some(Self { view, etag, body })
    }

    /// The same with this public address on its primary ip configuration, or with none. `None` where there is no such
    /// configuration.
    pub fn with(&self, address: Option<&Id>) -> Option<Value> {
        let wanted = &self.view.config.as_ref()?.id;
        let mut body = self.body.clone();
        let configs = body.get_mut("properties")?.get_mut("ipConfigurations")?.as_array_mut()?;
        let is_it =
            |config: &&mut Value| config.get("id").and_then(Value::as_str).is_some_and(|id| ids::same(id, wanted));
        let properties = configs.iter_mut().find(is_it)?.get_mut("properties")?.as_object_mut()?;
        match address {
            Some(address) => properties.insert("publicIPAddress".to_owned(), json!({"id": address.text()})),
            None => properties.remove("publicIPAddress"),
        };
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: &str = "/subscriptions/0a1b/resourceGroups/mc_nodes/providers/Microsoft.Network";

    fn body() -> Value {
        let id = format!("{NET}/networkInterfaces/nic-1");
        let config = |name: &str, primary: bool| {
            json!({"id": format!("{id}/ipConfigurations/{name}"), "future": 1, "properties": {
                "primary": primary, "publicIPAddress": {"id": format!("{NET}/publicIPAddresses/{name}")},
            }})
        };
        json!({
            "id": id, "etag": "W/\"7\"", "future": {"kept": [1, 2]},
            "properties": {"future": true, "ipConfigurations": [config("second", false), config("first", true)]},
        })
    }

    #[test]
    fn only_the_public_address_of_the_primary_configuration_changes() {
        let document = Document::new(body()).unwrap();
        assert_eq!(document.etag, "W/\"7\"");
        let mut expected = body();
        let primary = &mut expected["properties"]["ipConfigurations"][1]["properties"];
        let address = format!("{NET}/publicIPAddresses/SIP-1");
        primary["publicIPAddress"] = json!({"id": address});
        assert_eq!(document.with(Id::parse(&address).as_ref()).unwrap(), expected);
        expected["properties"]["ipConfigurations"][1]["properties"].as_object_mut().unwrap().remove("publicIPAddress");
        assert_eq!(document.with(None).unwrap(), expected);
    }

    #[test]
    fn what_could_not_be_written_back_safely_is_no_document() {
        let mut without = body();
        without.as_object_mut().unwrap().remove("etag");
        assert!(Document::new(without).is_none());
        let mut without = body();
        without["properties"]["ipConfigurations"] = json!([]);
        assert!(Document::new(without).unwrap().with(None).is_none());
    }
}
