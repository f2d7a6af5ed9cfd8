//! temporary
fn main() {
    for c in incident_operator::crds::all() {
        println!("---\n{}", incident_operator::crds::to_yaml(&c));
    }
}
