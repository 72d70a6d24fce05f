//! The agent role: collectors on the edge and their uplink.
