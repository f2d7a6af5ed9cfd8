//! Whole lives of incidents in a small world without a server.

mod checklist;
mod clocks;
mod deliveries;
mod ending;
mod entries;
mod expansion;
mod lifecycle;
mod properties;
mod replay;
mod roles;
mod steps;
mod table;
mod texts;
mod timeline;
mod warnings;
mod world;

use super::*;
use world::{ALL, Part, World, time};
