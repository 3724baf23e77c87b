//! Which server owns which slots, as far as this node knows.

use std::sync::Arc;

use super::link::Link;
use super::slots::{Address, slot_of};

/// The servers, and their slots.
pub(super) struct Links {
    pub all: Vec<Arc<Link>>,
    /// First slot, last slot and owner's place, in order. None: there is one server, and it owns everything.
    ranges: Option<Vec<(u16, u16, usize)>>,
    /// Owns what nobody owns. It is never connected; what is wanted of it waits for an owner.
    pub nobody: Arc<Link>,
}

impl Links {
    /// None are known yet.
    pub fn none(nobody: Arc<Link>) -> Self {
        Self { all: Vec::new(), ranges: None, nobody }
    }

    /// One server owns everything.
    pub fn one(all: Vec<Arc<Link>>, nobody: Arc<Link>) -> Self {
        Self { all, ranges: None, nobody }
    }

    /// `ranges` as in a `Topology`; `all` has every owner, and may have others.
    pub fn cluster(all: Vec<Arc<Link>>, ranges: &[(u16, u16, Address)], nobody: Arc<Link>) -> Self {
        let place = |owner: &Address| all.iter().position(|link| link.address.as_ref() == Some(owner));
        let ranges = ranges.iter().filter_map(|(first, last, owner)| Some((*first, *last, place(owner)?))).collect();
        Self { all, ranges: Some(ranges), nobody }
    }

    pub fn is_cluster(&self) -> bool {
        self.ranges.is_some()
    }

    /// Who has what stands under this key, or who carries this channel.
    pub fn owner(&self, key: &[u8]) -> &Arc<Link> {
        let Some(ranges) = &self.ranges else { return self.all.first().unwrap_or(&self.nobody) };
        let slot = slot_of(key);
        let place = ranges.partition_point(|(_, last, _)| *last < slot);
        let range = ranges.get(place).filter(|(first, ..)| *first <= slot);
        range.map_or(&self.nobody, |(.., owner)| &self.all[*owner])
    }

    pub fn at(&self, address: &Address) -> Option<&Arc<Link>> {
        self.all.iter().find(|link| link.address.as_ref() == Some(address))
    }

    /// Whether a server owns anything.
    pub fn has_slots(&self, link: &Link) -> bool {
        let is = |place: &usize| self.all[*place].number == link.number;
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|(.., owner)| is(owner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn every_slot_has_its_owner_or_nobody() {
        let metrics = Arc::new(Metrics::new());
        let link = |number, port| {
            let address = (port > 0).then(|| Address { host: "h".to_owned(), port });
            Arc::new(Link::new(number, address, metrics.clone()))
        };
        let nobody = link(0, 0);
        assert_eq!(Links::none(nobody.clone()).owner(b"x").number, 0);
        assert_eq!(Links::one(vec![link(1, 0)], nobody.clone()).owner(b"x").number, 1);
        let at = |port| Address { host: "h".to_owned(), port };
        // Slots: foo 12182, bar 5061, hello 866.
        let ranges = [(0, 866, at(1)), (5_061, 5_061, at(2)), (5_062, 12_181, at(1)), (12_183, 16_383, at(9))];
        let links = Links::cluster(vec![link(1, 1), link(2, 2), link(3, 3)], &ranges, nobody);
        let owner = |key: &str| links.owner(key.as_bytes()).number;
        assert_eq!((owner("hello"), owner("bar"), owner("foo")), (1, 2, 0));
        assert!(links.has_slots(&links.all[1]) && !links.has_slots(&links.all[2]));
        assert_eq!(links.at(&at(3)).map(|link| link.number), Some(3));
    }
}
