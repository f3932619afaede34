//! What has come, looked through before it is handled one by one, so that its memory is fetched together.

use smallvec::SmallVec;

use super::{Role, Shard};
use crate::model::note::Note;

/// So many are looked through together: what they need stays in the nearest caches until its turn.
pub(super) const AHEAD_MAX: usize = 16;

/// Numbers of sites, as the scheduler has them.
type Sites = SmallVec<[u32; AHEAD_MAX]>;

impl Shard {
    /// Fetches what the first notes of the inbox need: work its session, parcels their sites.
    pub(super) fn prefetch_notes(&self) {
        let notes = || self.inbox.iter().take(AHEAD_MAX);
        let session = |note: &Note| match note {
            Note::Work { lease, .. } => self.sending.key_of(*lease),
            _ => None,
        };
        notes().filter_map(session).for_each(|key| self.sending.prefetch(key));
        let seat = |note: &Note| match note {
            Note::Deliver { parcel, .. } => Some(parcel.bearing.target.seat.hint()),
            _ => None,
        };
        let sites: Sites = notes().filter_map(seat).collect();
        self.scheduler.prefetch_sites(&sites);
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
