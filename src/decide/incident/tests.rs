//! Whole lives of incidents in a small world without a server.

mod deliveries;
mod ending;
mod entries;
mod expansion;
mod lifecycle;
mod properties;
mod roles;
mod table;
mod timeline;
mod world;

use super::*;
use world::{ALL, Part, World, time};
