//! Who sits where: at most one subject on a resource and one resource for a subject, over all owners.

use std::{borrow::Borrow, collections::BTreeMap};

/// One table per process. `R` resource (a machine), `S` subject (an address), `O` owner (an object's uid).
///
/// An owner's claims are replaced as a whole whenever its entries are known anew, so that a seat taken for a write
/// that was then refused is free again with the owner's next pass.
#[derive(Clone, Debug, Default)]
pub struct Seats<R, S, O> {
    by_resource: BTreeMap<R, Vec<(S, O)>>,
    claims: BTreeMap<O, Vec<(R, S)>>,
}

impl<R, S, O> Seats<R, S, O>
where
    R: Ord + Clone,
    S: Ord + Clone,
    O: Ord + Clone,
{
    pub fn new() -> Self {
        Self { by_resource: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// Replaces all claims of `owner`. Rivals on one resource are kept side by side: the truth decides between them.
    pub fn set(&mut self, owner: &O, claims: impl IntoIterator<Item = (R, S)>) {
        self.drop_owner(owner);
        for (resource, subject) in claims {
            self.add(owner, resource, subject);
        }
    }

    /// Takes the seat for `subject`, unless another subject sits there.
    pub fn take(&mut self, owner: &O, resource: R, subject: S) -> bool {
        if self.others(&resource, &subject).next().is_some() {
            return false;
        }
        if !self
            .by_resource
            .get(&resource)
            .is_some_and(|sitting| sitting.iter().any(|(s, o)| s == &subject && o == owner))
        {
            self.add(owner, resource, subject);
        }
        true
    }

    /// Everybody on `resource` but `subject`.
    pub fn others<'a>(&'a self, resource: &R, subject: &'a S) -> impl Iterator<Item = &'a (S, O)> {
        self.by_resource.get(resource).into_iter().flatten().filter(move |(sitting, _)| sitting != subject)
    }

    /// Whether `resource` is another owner's: that of the smallest subject on it.
    pub fn is_anothers<Q>(&self, resource: &Q, owner: &O) -> bool
    where
        R: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.by_resource.get(resource).into_iter().flatten().min().is_some_and(|(_, whose)| whose != owner)
    }

    /// Whether anybody sits on `resource`.
    pub fn is_taken(&self, resource: &R) -> bool {
        self.by_resource.get(resource).is_some_and(|sitting| !sitting.is_empty())
    }

    /// Removes an owner that is gone.
    pub fn drop_owner(&mut self, owner: &O) {
        for (resource, subject) in self.claims.remove(owner).unwrap_or_default() {
            if let Some(sitting) = self.by_resource.get_mut(&resource) {
                sitting.retain(|(s, o)| !(s == &subject && o == owner));
                if sitting.is_empty() {
                    self.by_resource.remove(&resource);
                }
            }
        }
    }

    fn add(&mut self, owner: &O, resource: R, subject: S) {
        self.claims.entry(owner.clone()).or_default().push((resource.clone(), subject.clone()));
        self.by_resource.entry(resource).or_default().push((subject, owner.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_taken_once_over_all_owners() {
        let mut seats = Seats::new();
        assert!(seats.take(&"red", "m1", "a"));
        assert!(seats.take(&"red", "m1", "a"), "taking one's own seat again changes nothing");
        assert!(!seats.take(&"blue", "m1", "b"));
        assert!(seats.take(&"blue", "m2", "b"));
        seats.set(&"red", []);
        assert!(!seats.is_taken(&"m1"));
        assert!(seats.take(&"blue", "m1", "c"));
    }

    #[test]
    fn rivals_are_kept_so_that_one_can_undo() {
        let mut seats = Seats::new();
        seats.set(&"red", [("m1", "a")]);
        seats.set(&"blue", [("m1", "b")]);
        assert_eq!(seats.others(&"m1", &"a").collect::<Vec<_>>(), [&("b", "blue")]);
        assert_eq!(
            ["red", "blue"].map(|owner| seats.is_anothers("m1", &owner)),
            [false, true],
            "it is the first one's"
        );
        assert!(!seats.is_anothers("m2", &"red"), "it is nobody's");
        seats.drop_owner(&"blue");
        assert_eq!(seats.others(&"m1", &"a").count(), 0);
    }
}
