//! Reading the files of a context again, as the configuration names them.

use std::sync::Arc;

use tidegate_types::json::Problem;

use super::{CertificateConfig, DownstreamTls, TicketKey, TlsConfig, UpstreamTls, ValidationConfig};
use crate::values::DataSource;

impl DataSource {
    /// Itself with the present content of its file. Inline data and environment variables do not change.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn reread(&self) -> Result<Self, Problem> {
        let Some(path) = &self.filename else { return Ok(self.clone()) };
        match std::fs::read(path) {
            Ok(bytes) if bytes == self.bytes => Ok(self.clone()),
            Ok(bytes) => Ok(Self { bytes: bytes.into(), ..self.clone() }),
            Err(error) => Err(self.place.problem(format!("cannot read `{path}`: {error}"))),
        }
    }
}

impl TlsConfig {
    /// Itself with the present content of its files; `None` if that is what it was.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn reread(&self) -> Result<Option<Self>, Problem> {
        let certificates =
            self.certificates.iter().map(CertificateConfig::reread).collect::<Result<_, _>>()?;
        let validation = self.validation.as_deref().map(ValidationConfig::reread).transpose()?.map(Arc::new);
        let now = Self { certificates, validation, ..self.clone() };
        Ok((now != *self).then_some(now))
    }

    fn forget_content(&mut self) {
        for certificate in &mut self.certificates {
            forget(&mut certificate.chain);
            forget(&mut certificate.key);
        }
        if let Some(validation) = &mut self.validation {
            let validation = Arc::make_mut(validation);
            validation.trusted_ca.iter_mut().chain(&mut validation.crl).for_each(forget);
        }
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let pairs = self.certificates.iter().flat_map(|certificate| [&certificate.chain, &certificate.key]);
        let trust = self.validation.iter().flat_map(|trust| trust.trusted_ca.iter().chain(&trust.crl));
        pairs.chain(trust).filter_map(|source| source.filename.as_deref())
    }
}

impl CertificateConfig {
    fn reread(&self) -> Result<Self, Problem> {
        Ok(Self { chain: self.chain.reread()?, key: self.key.reread()?, ..self.clone() })
    }
}

impl TicketKey {
    /// Itself with the present content of its file.
    ///
    /// # Errors
    /// The file cannot be read, or its length is not [`super::TICKET_KEY_BYTES`].
    pub fn reread(&self) -> Result<Self, Problem> {
        let source = self.source.reread()?;
        if source.bytes.len() == super::TICKET_KEY_BYTES {
            return Ok(Self { source });
        }
        let length = source.bytes.len();
        Err(source
            .place
            .problem(format!("a session ticket key has {} bytes, not {length}", super::TICKET_KEY_BYTES)))
    }
}

impl ValidationConfig {
    fn reread(&self) -> Result<Self, Problem> {
        let again = |source: &Option<DataSource>| source.as_ref().map(DataSource::reread).transpose();
        Ok(Self { trusted_ca: again(&self.trusted_ca)?, crl: again(&self.crl)?, ..self.clone() })
    }
}

impl DownstreamTls {
    /// Whether it names the same files and says the same otherwise, whatever the files hold.
    pub fn same_but_content(&self, other: &Self) -> bool {
        self.without_content() == other.without_content()
    }

    fn without_content(&self) -> Self {
        let mut all = self.clone();
        all.common.forget_content();
        all.ticket_keys.iter_mut().for_each(|key| forget(&mut key.source));
        all
    }
}

impl UpstreamTls {
    /// As [`DownstreamTls::same_but_content`].
    pub fn same_but_content(&self, other: &Self) -> bool {
        self.without_content() == other.without_content()
    }

    fn without_content(&self) -> Self {
        let mut all = self.clone();
        all.common.forget_content();
        all
    }
}

fn forget(source: &mut DataSource) {
    if source.filename.is_some() {
        source.bytes = Default::default();
    }
}
