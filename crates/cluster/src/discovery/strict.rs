//! Strict DNS: each address of each name is a host.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{Discovery, EndpointConfig, LocalityEndpoints};
use tidegate_net::dns::Found;

use super::{Taken, Takes, host};
use crate::shared::{Ancestors, ClusterShared};

/// What is known of all names of a cluster. An address that two names have is two hosts, as in Envoy.
#[derive(Debug)]
pub(super) struct Board {
    /// The localities of the configuration, without their endpoints.
    places: Vec<LocalityEndpoints>,
    /// For each name its locality, and its hosts; `None` as long as there was no answer.
    names: Vec<(usize, Option<Vec<EndpointConfig>>)>,
}

/// One name of a board.
pub(super) struct Target {
    board: Rc<RefCell<Board>>,
    index: usize,
    template: EndpointConfig,
}

impl Board {
    /// The names of a cluster, which are looked up independently of each other.
    pub(super) fn targets(config: &ClusterConfig) -> impl Iterator<Item = Target> {
        let strict = matches!(config.discovery, Discovery::StrictDns(_));
        let places = if strict { config.endpoints.as_slice() } else { &[] };
        let empty = |place: &LocalityEndpoints| LocalityEndpoints { endpoints: Vec::new(), ..place.clone() };
        let endpoints = places.iter().enumerate();
        let endpoints: Vec<_> = endpoints
            .flat_map(|(place, all)| all.endpoints.iter().map(move |endpoint| (place, endpoint.clone())))
            .collect();
        let board = Board {
            places: places.iter().map(empty).collect(),
            names: endpoints.iter().map(|(place, _)| (*place, None)).collect(),
        };
        let board = Rc::new(RefCell::new(board));
        let templates = endpoints.into_iter().enumerate();
        templates.map(move |(index, (_, template))| Target { board: board.clone(), index, template })
    }

    fn endpoints(&self) -> Vec<LocalityEndpoints> {
        let mut places = self.places.clone();
        for (place, hosts) in &self.names {
            places[*place].endpoints.extend(hosts.iter().flatten().cloned());
        }
        places
    }

    fn is_complete(&self) -> bool {
        self.names.iter().all(|(_, hosts)| hosts.is_some())
    }
}

impl Target {
    /// What is looked up.
    pub(super) fn name(&self) -> &str {
        self.template.name.as_deref().unwrap_or_default()
    }
}

impl Takes for Target {
    fn take(&mut self, cluster: &ClusterShared, found: &[Found]) -> Taken {
        let mut seen = HashSet::new();
        let distinct = found.iter().filter(|found| seen.insert(found.ip));
        let hosts: Vec<_> =
            distinct.filter_map(|found| host(&self.template, std::slice::from_ref(found))).collect();
        let mut board = self.board.borrow_mut();
        if let Some(place) = board.places.get(board.names[self.index].0) {
            cluster.note_made(place, &hosts);
        }
        board.names[self.index].1 = Some(hosts);
        let ancestors = if board.is_complete() { Ancestors::Forget } else { Ancestors::Keep };
        match cluster.take_over(&board.endpoints(), ancestors).is_news() {
            true => Taken::Changed,
            false => Taken::Same,
        }
    }
}
