//! Checks and digests the rows of a session (docs/protocol.md, "Statement" and "Reading a trace").
//!
//! Both parties hold the same rows and compute the same digest. The digest is over the canonical
//! content, not over the bytes of a file.

use std::{ops::Range, sync::Arc};

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    manifest::{AdapterId, Module},
    row_source::{self, Piece, RowSource},
    rows::{self, RowSlices, RowsInMemory},
};

/// BLAKE3 of a session's canonical content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceDigest(pub [u8; 32]);

/// The rows of a session. They obey the manifest's shapes and ranges.
#[derive(Clone)]
pub struct Trace<'a> {
    source: Arc<dyn RowSource + 'a>,
    counts: Vec<usize>,
    context: [u8; 32],
    digest: TraceDigest,
    adapter: AdapterId,
}

impl std::fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({:?}, rows {:?})", self.digest, self.counts)
    }
}

impl<'a> Trace<'a> {
    /// [`Trace::read`] for rows in memory. `modules` has one entry for each module of the manifest,
    /// in its order.
    ///
    /// # Errors
    /// Those of [`Trace::read`].
    pub fn new(
        manifest: &CheckedManifest,
        context: [u8; 32],
        modules: Vec<RowSlices<'a>>,
    ) -> Result<Trace<'a>, Error> {
        if modules.len() != manifest.modules().len() {
            return Err(Error::Trace(format!(
                "it has {} modules, the manifest {}",
                modules.len(),
                manifest.modules().len()
            )));
        }
        Trace::read(manifest, context, Arc::new(RowsInMemory(modules)))
    }

    /// Reads the rows once, in pieces, checks them against the manifest and digests them. `source`
    /// has the modules of the manifest, in its order; `context` is the session's 32 bytes, which
    /// the user drew.
    ///
    /// # Errors
    /// [`Error::Trace`] names the module and the row that break a shape or a range,
    /// [`Error::BeyondBound`] those of a delta that is beyond the certified bound.
    pub fn read(
        manifest: &CheckedManifest,
        context: [u8; 32],
        source: Arc<dyn RowSource + 'a>,
    ) -> Result<Trace<'a>, Error> {
        let modules = manifest.modules();
        let counts: Vec<usize> = (0..modules.len()).map(|m| source.count(m)).collect();
        for (m, module) in modules.iter().enumerate() {
            let shape = rows::check_count(counts[m]).and_then(|()| source.check_shape(m, module));
            shape.map_err(|why| Error::Trace(format!("module `{}`: {why}", module.name)))?;
        }
        if counts.iter().all(|count| *count == 0) {
            return Err(Error::Trace("it has no rows: there is nothing to prove".into()));
        }
        let mut hasher = row_source::hasher(modules.len());
        for (m, module) in modules.iter().enumerate() {
            let check = &mut |rows: Range<usize>, piece: &Piece<'_>| {
                rows::check_piece(module, rows.start, piece)
            };
            row_source::read_module(&*source, m, counts[m], module, Some(&mut hasher), check)?;
        }
        let digest = TraceDigest(*hasher.finalize().as_bytes());
        Ok(Trace { source, counts, context, digest, adapter: manifest.id() })
    }

    /// Number of rows of each module of the manifest.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// The source of the rows.
    pub(crate) fn source(&self) -> &dyn RowSource {
        &*self.source
    }

    /// Reads all rows once more, in the canonical order, and passes module, rows and piece to
    /// `visit`.
    ///
    /// # Errors
    /// Those of `visit`; [`Error::Trace`] if the rows are no longer those that were checked and
    /// digested.
    pub fn visit(
        &self,
        modules: &[Module],
        mut visit: impl FnMut(usize, Range<usize>, &Piece<'_>) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mut hasher = (!self.source.is_constant()).then(|| row_source::hasher(modules.len()));
        for (m, module) in modules.iter().enumerate() {
            let visit = &mut |rows: Range<usize>, piece: &Piece<'_>| visit(m, rows, piece);
            row_source::read_module(
                self.source(),
                m,
                self.counts[m],
                module,
                hasher.as_mut(),
                visit,
            )?;
        }
        self.check_digest(hasher)
    }

    /// Checks that a later reading returned the same rows as the first one.
    pub(crate) fn check_digest(&self, hasher: Option<blake3::Hasher>) -> Result<(), Error> {
        match hasher {
            Some(hasher) if *hasher.finalize().as_bytes() != self.digest.0 => Err(Error::Trace(
                "its rows changed while they were read: run again when no other process writes to it".into(),
            )),
            _ => Ok(()),
        }
    }

    /// The session's context: the user's 32 bytes.
    pub fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// The digest of the canonical content.
    pub fn digest(&self) -> TraceDigest {
        self.digest
    }

    /// The adapter whose shapes and ranges the rows were checked against.
    pub fn adapter(&self) -> AdapterId {
        self.adapter
    }

    /// Rows of all modules together.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }
}
