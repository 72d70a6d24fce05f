//! Six cells and their fronthaul. 100 MHz of TDD at 30 kHz: 273 PRBs (TS 38.101-1 table 5.3.2-1), 2,000 slots a second of which four in
//! five are downlink (DDDSU).

use super::line::{Line, Tally};
use super::noise::Noise;
use super::site::{Drive, SERVERS, TROUBLED};

/// PRBs of a cell.
const PRBS: f64 = 273.0;
/// Slots a second, downlink (special ones included) and uplink.
const DL_SLOTS: f64 = 1_600.0;
const UL_SLOTS: f64 = 400.0;
/// Bytes a second of a full cell: some 1.2 Gbit/s down, 110 Mbit/s up.
const DL_BYTES: f64 = 150e6;
const UL_BYTES: f64 = 14e6;
/// Uplink user-plane packets a second, whatever the load: 14 symbols of 4 antennas in each uplink slot.
const UL_PACKETS: f64 = UL_SLOTS * 14.0 * 4.0;
/// Bounds of the scheduler's latency, seconds: ten bins of 50 us, the last bound is the slot's length.
const SLOT_BOUNDS: [f64; 10] = [50e-6, 100e-6, 150e-6, 200e-6, 250e-6, 300e-6, 350e-6, 400e-6, 450e-6, 500e-6];
/// Bounds of layer 1's processing, seconds, as NVIDIA Aerial has them.
const LAYER1_BOUNDS: [f64; 8] = [250e-6, 500e-6, 750e-6, 1e-3, 1.25e-3, 1.5e-3, 1.75e-3, 2e-3];
/// Offset of the clock beyond which packets leave their reception window, seconds.
const WINDOW_SLACK: f64 = 0.8e-6;
/// The cell that is full once a day.
const FULL: usize = 2;

/// Cells by server.
pub(super) struct Radio {
    cells: Vec<Cell>,
    cards: [Card; 2],
}

/// What a cell has counted.
struct Cell {
    names: Names,
    noise: Noise,
    /// How popular it is.
    share: f64,
    dl_bytes: f64,
    ul_bytes: f64,
    dl_blocks: f64,
    ul_blocks: f64,
    ul_errors: f64,
    harq_ok: f64,
    harq_nok: f64,
    slots: f64,
    late_slots: f64,
    rrc_attempts: f64,
    rrc_successes: f64,
    energy: f64,
    latency: Tally,
    pusch: Tally,
    early: f64,
    on_time: f64,
    late: f64,
    missed_symbols: f64,
    late_dl_slots: f64,
    uplane_bytes: f64,
}

#[derive(Clone, Copy)]
struct Names {
    server: usize,
    gnb: &'static str,
    cell: &'static str,
    ru: &'static str,
    pci: f64,
}

struct Card {
    name: &'static str,
    noise: Noise,
    dropped: f64,
}

const CELLS: [(&str, &str); 6] = [
    ("demo-cell-1", "demo-ru-1"),
    ("demo-cell-2", "demo-ru-2"),
    ("demo-cell-3", "demo-ru-3"),
    ("demo-cell-4", "demo-ru-4"),
    ("demo-cell-5", "demo-ru-5"),
    ("demo-cell-6", "demo-ru-6"),
];

impl Radio {
    pub fn new(seed: u64) -> Radio {
        let cells = CELLS.into_iter().enumerate().map(|(index, (cell, ru))| {
            let server = index / 3;
            let gnb = ["demo-gnb-1", "demo-gnb-2"][server];
            let names = Names { server, gnb, cell, ru, pci: 101.0 + index as f64 };
            Cell::new(names, Noise::new(seed, cell), 0.7 + 0.1 * index as f64)
        });
        let card = |name| Card { name, noise: Noise::new(seed, name), dropped: 0.0 };
        Radio { cells: cells.collect(), cards: [card("ens1f0"), card("ens1f1")] }
    }

    /// One second. `offset` is that of the troubled server's clock, in seconds. Gives the load of each server's cells, 0 to 1.
    pub fn step(&mut self, drive: Drive, offset: f64, lines: &mut Vec<Line>) -> [f64; 2] {
        let mut loads = [0.0; 2];
        for (index, cell) in self.cells.iter_mut().enumerate() {
            let full = drive.saturation.filter(|_| index == FULL);
            let offset = if cell.names.server == TROUBLED { offset } else { 0.0 };
            loads[cell.names.server] += cell.step(drive, full, offset, lines) / 3.0;
        }
        for (server, card) in self.cards.iter_mut().enumerate() {
            let jitter = 8e-9 * (1.0 + 0.4 * card.noise.rough(drive.moment.second));
            card.dropped += if drive.is_due(97) { 1.0 } else { 0.0 };
            lines.push(
                Line::new("fronthaul", SERVERS[server], drive.moment)
                    .word("nic", card.name)
                    .whole("nic_rx_dropped_packets", card.dropped)
                    .whole("nic_tx_failed_packets", 0.0)
                    .number("tx_clock_jitter_seconds", jitter),
            );
        }
        loads
    }
}

impl Cell {
    fn new(names: Names, noise: Noise, share: f64) -> Cell {
        Cell {
            names,
            noise,
            share,
            dl_bytes: 0.0,
            ul_bytes: 0.0,
            dl_blocks: 0.0,
            ul_blocks: 0.0,
            ul_errors: 0.0,
            harq_ok: 0.0,
            harq_nok: 0.0,
            slots: 0.0,
            late_slots: 0.0,
            rrc_attempts: 0.0,
            rrc_successes: 0.0,
            energy: 0.0,
            latency: Tally::new(&SLOT_BOUNDS),
            pusch: Tally::new(&LAYER1_BOUNDS),
            early: 0.0,
            on_time: 0.0,
            late: 0.0,
            missed_symbols: 0.0,
            late_dl_slots: 0.0,
            uplane_bytes: 0.0,
        }
    }

    /// One second; gives the cell's load.
    fn step(&mut self, drive: Drive, full: Option<f64>, offset: f64, lines: &mut Vec<Line>) -> f64 {
        let second = drive.moment.second;
        let noise = 0.06 * self.noise.smooth(second) + 0.03 * self.noise.rough(second);
        let wanted = (drive.demand * self.share + noise).clamp(0.02, 0.98);
        // A full cell stays full; it swells within the first tenth of the trouble and ebbs within the last.
        let swell = full.map_or(0.0, |part| (part.min(1.0 - part) * 10.0).min(1.0));
        let load = wanted + (0.985 + 0.01 * noise - wanted) * swell;
        let ul_load = (0.6 * load).clamp(0.02, 0.98);
        self.count(load, ul_load, swell, offset);
        let ues = (4.0 + 40.0 * load * (1.0 + swell)).round();
        let names = self.names;
        let node = SERVERS[names.server];
        lines.push(
            Line::new("cell", node, drive.moment)
                .word("gnb", names.gnb)
                .word("cell", names.cell)
                .whole("pci", names.pci)
                .whole("numerology", 1.0)
                .word("plmn", "00101")
                .word("cell_state", "active")
                .number("dl_prb_utilization", load)
                .number("ul_prb_utilization", ul_load)
                .number("dl_prbs_used", load * PRBS)
                .number("ul_prbs_used", ul_load * PRBS)
                .number("dl_prbs_available", PRBS)
                .number("ul_prbs_available", PRBS)
                .number("dl_bytes_per_second", load * DL_BYTES)
                .number("ul_bytes_per_second", ul_load * UL_BYTES)
                .whole("dl_bytes", self.dl_bytes)
                .whole("ul_bytes", self.ul_bytes)
                .whole("dl_transport_blocks", self.dl_blocks)
                .whole("ul_transport_blocks", self.ul_blocks)
                .whole("ul_transport_block_crc_errors", self.ul_errors)
                .whole("dl_harq_ok", self.harq_ok)
                .whole("dl_harq_nok", self.harq_nok)
                .number("connected_ues", ues)
                .number("active_ues", (ues * load).round())
                .whole("rrc_attempts", self.rrc_attempts)
                .whole("rrc_successes", self.rrc_successes)
                .number("dl_rlc_delay_seconds", 2e-3 + 8e-3 * load.powi(4) + 0.06 * swell)
                .whole("dl_slots", self.slots * 0.8)
                .whole("ul_slots", self.slots * 0.2)
                .whole("late_slots", self.late_slots)
                .histogram("slot_latency_seconds", &self.latency)
                .histogram("pusch_processing_seconds", &self.pusch)
                .number("power_watts", 220.0 + 380.0 * load)
                .number("energy_joules", self.energy),
        );
        lines.push(
            Line::new("fronthaul", node, drive.moment)
                .word("cell", names.cell)
                .whole("rx_early_packets", self.early)
                .whole("rx_on_time_packets", self.on_time)
                .whole("rx_late_packets", self.late)
                .number("rx_latest_seconds", (offset.abs() - WINDOW_SLACK).max(0.0))
                .whole("missed_ul_symbols", self.missed_symbols)
                .whole("missed_prach_occasions", 0.0)
                .whole("late_dl_slots", self.late_dl_slots)
                .whole("late_ul_slot_requests", 0.0),
        );
        lines.push(
            Line::new("fronthaul", node, drive.moment)
                .word("ru", names.ru)
                .whole("uplane_rx_bytes", self.uplane_bytes)
                .whole("uplane_rx_packets", self.early + self.on_time + self.late)
                .whole("cplane_tx_packets", self.slots * 6.0),
        );
        load
    }

    /// Adds what a second brings.
    fn count(&mut self, load: f64, ul_load: f64, swell: f64, offset: f64) {
        self.dl_bytes += load * DL_BYTES;
        self.ul_bytes += ul_load * UL_BYTES;
        let (dl_blocks, ul_blocks) = (DL_SLOTS * load * 2.0, UL_SLOTS * ul_load * 2.0);
        let lost = 0.06 + 0.06 * swell;
        self.dl_blocks += dl_blocks;
        self.ul_blocks += ul_blocks;
        self.ul_errors += ul_blocks * lost;
        self.harq_ok += dl_blocks * (1.0 - lost);
        self.harq_nok += dl_blocks * lost;
        let attempts = 0.5 + 2.0 * load + 6.0 * swell;
        self.rrc_attempts += attempts;
        self.rrc_successes += attempts * (1.0 - 0.004 - 0.12 * swell);
        self.energy += 220.0 + 380.0 * load;
        let slots = DL_SLOTS + UL_SLOTS;
        self.slots += slots;
        self.late_slots += self.latency.add(slots, 70e-6 + 70e-6 * load + 80e-6 * swell, 8.0);
        self.pusch.add(UL_SLOTS, 550e-6 + 350e-6 * load, 9.0);
        // Where the clock is off by more than the window allows, a growing share of the packets is outside of it.
        let outside = ((offset.abs() - WINDOW_SLACK) / 1e-6).max(0.0) * 4e-3;
        let (early, late) = (UL_PACKETS * 8e-6, UL_PACKETS * (1e-5 + outside));
        self.early += early;
        self.late += late;
        self.on_time += UL_PACKETS - early - late;
        self.missed_symbols += UL_PACKETS * outside / 64.0;
        self.late_dl_slots += 2e-3 + swell * 0.3;
        self.uplane_bytes += UL_PACKETS * 1_300.0;
    }
}
