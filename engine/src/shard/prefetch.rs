//! What has come, looked through before it is handled one by one, so that its memory is fetched together.

use smallvec::SmallVec;

use super::{Role, Shard};
use crate::base::prefetch;
use crate::model::note::Note;

/// So many are looked through together: what they need stays in the nearest caches until its turn.
pub const AHEAD_MAX: usize = 16;

/// Numbers of sites, as the scheduler has them.
type Sites = SmallVec<[u32; AHEAD_MAX]>;

impl Shard {
    /// Fetches what the first of these notes need: work its session, parcels and outcomes their sites.
    pub fn prefetch_notes<'a>(&self, notes: impl Iterator<Item = &'a Note> + Clone) {
        let notes = || notes.clone().take(AHEAD_MAX);
        // What comes from another shard lies in the caches of another core.
        notes().for_each(prefetch_parts);
        notes().filter_map(|note| self.session_for(note)).for_each(|key| {
            self.sending.prefetch(key);
        });
        let sites: Sites = notes().filter_map(|note| self.prefetch_way_to_site(note)).collect();
        self.scheduler.prefetch_sites(&sites);
    }

    fn session_for(&self, note: &Note) -> Option<usize> {
        match note {
            Note::Work { lease, .. } => self.sending.key_of(*lease),
            _ => None,
        }
    }

    /// The site that a note is about; a lease is fetched that has to be asked for it.
    fn prefetch_way_to_site(&self, note: &Note) -> Option<u32> {
        match note {
            Note::Deliver { parcel, .. } => Some(parcel.bearing.target.last_slot.get()),
            Note::Done { lease, .. } => self.scheduler.prefetch_lease(*lease),
            _ => None,
        }
    }

    /// Fetches what replies on these connections need, of those that carry mail out.
    pub fn prefetch_replies(&self, slots: impl Iterator<Item = u32> + Clone) {
        let key = |slot: u32| match self.roles.get(slot as usize) {
            Some(Role::Egress(key)) => Some(*key),
            _ => None,
        };
        let keys = slots.filter_map(key).take(AHEAD_MAX);
        keys.clone().for_each(|key| self.sending.prefetch(key));
        let leases = keys.filter_map(|key| self.sending.lease_of(key));
        let sites: Sites =
            leases.filter_map(|lease| self.scheduler.prefetch_lease(lease)).collect();
        self.scheduler.prefetch_sites(&sites);
    }
}

fn prefetch_parts(note: &Note) {
    match note {
        Note::Deliver { parcel, .. } => prefetch::all(&**parcel),
        Note::Work { delivery, .. } => prefetch::all(&**delivery),
        Note::Done { done, .. } => prefetch::all(&**done),
        _ => {}
    }
}
