//! Questions and answers on the wire (RFC 1035 section 4). Whatever does not belong to the question is ignored.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::{Family, Found};

/// More links of a chain of aliases are not followed.
const MAX_ALIASES: usize = 16;

/// One question: a name and a type of records.
#[derive(Clone, Debug)]
pub(super) struct Question {
    name: Name,
    asked: RecordType,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The records that answer, and what came along; none if the name does not exist.
    Found(Vec<Record>),
    /// It cannot or does not want to tell: another server may.
    Refused,
    /// It knows no EDNS, or says so (RFC 6891 section 7).
    Malformed,
    /// There is more than fits: to be asked again over TCP (RFC 1035 section 4.2.1).
    Truncated,
}

impl Question {
    /// `None`: `name` is none.
    pub(super) fn new(name: &str, asked: RecordType) -> Option<Self> {
        let mut name = Name::from_str(name).ok()?;
        name.set_fqdn(true);
        Some(Self { name, asked })
    }

    /// What is asked for addresses of a family.
    pub(super) fn type_of(family: Family) -> RecordType {
        match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }

    /// The message that asks it. `max_payload`: `None` for servers that know no EDNS.
    pub(super) fn encode(&self, id: u16, max_payload: Option<u16>) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query());
        if let Some(max_payload) = max_payload {
            let mut edns = Edns::new();
            edns.set_max_payload(max_payload);
            message.set_edns(edns);
        }
        message.to_vec().ok()
    }

    /// What `bytes` answer; `None` if they are no answer to this question asked as `id`, and so perhaps forged
    /// (RFC 5452 section 9.1).
    pub(super) fn read(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        let is_response = message.metadata.message_type == MessageType::Response;
        if message.metadata.id != id || !is_response {
            return None;
        }
        let code = message.metadata.response_code;
        let echoed = matches!(message.queries.as_slice(), [query] if self.is(query));
        // Servers that did not understand the question may leave it out.
        let left_out = message.queries.is_empty() && code == ResponseCode::FormErr;
        if !echoed && !left_out {
            return None;
        }
        Some(match code {
            _ if message.metadata.truncation => Reply::Truncated,
            ResponseCode::NoError => Reply::Found(message.answers),
            ResponseCode::NXDomain => Reply::Found(Vec::new()),
            ResponseCode::FormErr => Reply::Malformed,
            _ => Reply::Refused,
        })
    }

    fn query(&self) -> Query {
        Query::query(self.name.clone(), self.asked)
    }

    fn is(&self, query: &Query) -> bool {
        let own = self.query();
        query.query_type() == own.query_type()
            && query.query_class() == DNSClass::IN
            // Names are equal whatever their case is (RFC 4343).
            && query.name() == own.name()
    }

    /// The addresses of the name and its aliases. An alias that may be used for a shorter time shortens theirs.
    pub(super) fn addresses(&self, answers: &[Record]) -> Vec<Found> {
        let found = self.own(answers).filter_map(|(record, ttl)| {
            let ip: IpAddr = match &record.data {
                RData::A(a) => a.0.into(),
                RData::AAAA(aaaa) => aaaa.0.into(),
                _ => return None,
            };
            (Self::type_of(Family::of(&ip)) == self.asked).then_some(Found { ip, ttl })
        });
        found.collect()
    }

    /// The records of the name, wherever its aliases lead, and how long each may be used.
    pub(super) fn own<'a>(&self, answers: &'a [Record]) -> impl Iterator<Item = (&'a Record, Duration)> {
        let (mut name, mut ttl) = (self.name.clone(), u32::MAX);
        for _ in 0..MAX_ALIASES {
            let alias = answers.iter().find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == name => Some((&alias.0, record.ttl)),
                _ => None,
            });
            let Some((target, of_alias)) = alias else { break };
            (name, ttl) = (target.clone(), ttl.min(of_alias));
        }
        let records = answers.iter().filter(move |record| record.name == name);
        records.map(move |record| (record, Duration::from_secs(u64::from(record.ttl.min(ttl)))))
    }
}
