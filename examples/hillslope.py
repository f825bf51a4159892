"""Hillslope diffusion of real terrain, on one rank or on many.

Soil creeps downhill: dz/dt = div(kappa grad z). The land is the elevation model of the Jacksboro
fault in Tennessee that comes with matplotlib, 344 x 403 cells of about 93 m x 74 m. The map is cut
into blocks, one for each rank; ranks exchange the edges of their blocks in every step, and each
saves its own block of every snapshot. No soil crosses the edges of the map.

    python examples/hillslope.py                     alone; mpi4py isn't needed
    mpiexec -n 4 python examples/hillslope.py        four blocks
    notata merge outputs/log_hillslope               the blocks become whole maps
    python examples/hillslope.py --draw              outputs/log_hillslope/plots/hillslope.png

However many ranks there are, the merged maps are the same to the last bit, since each cell is
computed from the same numbers in the same order.
"""

import argparse
from pathlib import Path

import numpy as np

from notata import Logbook, LogReader

KAPPA = 0.01  # how fast soil creeps, m2/yr
RUN_ID = "hillslope"


def start_mpi():
    """The MPI module of mpi4py, whose import starts MPI, or None where there isn't one."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # RuntimeError: mpi4py is there, but no MPI library
        return None
    return MPI


def state(step):
    """Name of the snapshot of a step."""
    return f"states/z_step{step:04d}"


def read_terrain():
    """Elevation in metres, its first row in the north, and the cells' size (dy, dx) in metres."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("jacksboro_fault_dem.npz") as dem:
        z = dem["elevation"].astype(float)
        latitude = np.radians((dem["ymin"] + dem["ymax"]) / 2)
        metres_per_degree = 111_200.0
        dy = metres_per_degree * float(dem["dy"])
        dx = metres_per_degree * float(dem["dx"] * np.cos(latitude))
    return z, (dy, dx)


class Blocks:
    """The map cut into blocks: which one is this rank's, and how it talks to the others.

    A block is stored with a frame of one ghost cell, its halo, around it.
    """

    def __init__(self, shape):
        self.mpi = start_mpi()
        self.size, self.dims, self.cart = 1, [1, 1], None
        coords = [0, 0]
        if self.mpi is not None:
            world = self.mpi.COMM_WORLD
            self.size = world.Get_size()
            self.dims = self.mpi.Compute_dims(self.size, 2)
            self.cart = world.Create_cart(self.dims, periods=[False, False], reorder=False)
            coords = self.cart.coords
        # 344 and 403 don't divide evenly, so blocks differ by a row or a column.
        axes = list(zip(shape, coords, self.dims, strict=True))
        self.start = tuple(n * c // d for n, c, d in axes)
        self.stop = tuple(n * (c + 1) // d for n, c, d in axes)

    def __str__(self):
        return f"{self.dims[0]} x {self.dims[1]} blocks"

    def cut(self, whole):
        """This rank's block of a whole map, framed by its halo."""
        rows, columns = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return np.pad(whole[rows, columns], 1)

    def fill_halo(self, z):
        """Fill the halo with the edges of the neighbouring blocks."""
        for axis in (0, 1):
            lines = np.moveaxis(z, axis, 0)  # a view: lines[0] and lines[-1] are halo
            for leaving, beside, halo, way in ((1, -2, -1, -1), (-2, 1, 0, +1)):
                # At the map's edge nothing arrives, and the halo repeats the cells beside it:
                # no slope, no flow.
                arriving = lines[beside].copy()
                if self.cart is not None:
                    source, target = self.cart.Shift(axis, way)
                    edge = np.ascontiguousarray(lines[leaving])
                    self.cart.Sendrecv(edge, dest=target, recvbuf=arriving, source=source)
                lines[halo] = arriving

    def total(self, value):
        """The sum of all ranks' values. Its last digits depend on the number of ranks."""
        return value if self.cart is None else self.cart.allreduce(value, op=self.mpi.SUM)

    def highest(self, value):
        """The highest of all ranks' values."""
        return value if self.cart is None else self.cart.allreduce(value, op=self.mpi.MAX)


def creep(z, kappa, cell, dt):
    """One explicit step, in place: what flows through the four faces of each cell."""
    dy, dx = cell
    south = kappa * np.diff(z[:, 1:-1], axis=0) / dy
    east = kappa * np.diff(z[1:-1, :], axis=1) / dx
    z[1:-1, 1:-1] += dt * (np.diff(south, axis=0) / dy + np.diff(east, axis=1) / dx)


def measure(z, blocks, cell):
    """Relief of the whole map (highest less lowest cell, m) and its volume above the sea (km3)."""
    land = z[1:-1, 1:-1]
    relief = blocks.highest(float(land.max())) + blocks.highest(float(-land.min()))
    volume = blocks.total(float(land.sum())) * cell[0] * cell[1] * 1e-9
    return relief, volume


def simulate(out, steps, every, overwrite):
    terrain, cell = read_terrain()
    blocks = Blocks(terrain.shape)
    z = blocks.cut(terrain)
    # An explicit step is stable up to this limit; well below it, it is accurate too.
    limit = 1 / (2 * KAPPA * (1 / cell[0] ** 2 + 1 / cell[1] ** 2))
    dt = 0.1 * limit
    params = {"kappa": KAPPA, "dt": dt, "steps": steps, "every": every, "cell": list(cell)}

    with Logbook(RUN_ID, base_dir=out, params=params, overwrite=overwrite) as log:
        if log.size != blocks.size:
            raise RuntimeError(f"started {log.size} times, but there is no mpi4py to connect them")

        def snapshot(step):
            log.array(state(step), z, start=blocks.start, shape=terrain.shape, halo=1)

        snapshot(0)
        before, volume = measure(z, blocks, cell)
        log.root.info(f"{blocks}: relief {before:.1f} m, volume {volume:.6f} km3")
        for step in range(1, steps + 1):
            blocks.fill_halo(z)
            creep(z, KAPPA, cell, dt)
            if step % every == 0 or step == steps:
                snapshot(step)
                relief, volume = measure(z, blocks, cell)
                log.root.info(
                    f"step {step} of {steps}, {step * dt / 1e6:.2f} Myr: relief {relief:.1f} m, "
                    f"volume {volume:.6f} km3"
                )
        relief, volume = measure(z, blocks, cell)
        metrics = {"relief_before": before, "relief_after": relief, "volume_km3": volume}
        log.root.json("metrics", metrics)

    if log.is_root:
        print(f"{steps} steps, {steps * dt / 1e6:.1f} million years")
        print(f"Relief: {before:.1f} m before, {relief:.1f} m after")
        print(f"Ranks: {log.size}, {blocks}")
        print(f"Wall time: {log.elapsed:.2f} s")
        print(f"Run: {log.path}")


def draw(path):
    """Draw the land before and after, and what has changed, into the run's plots/."""
    import matplotlib

    matplotlib.use("Agg")  # needs no screen
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LightSource, ListedColormap, Normalize

    run = LogReader(path)
    steps, dt, (dy, dx) = (run.params[key] for key in ("steps", "dt", "cell"))
    before, after = run.load_array(state(0)), run.load_array(state(steps))
    change = after - before

    land = ListedColormap(plt.get_cmap("gist_earth")(np.linspace(0.3, 1, 256)))  # without its sea
    heights = ScalarMappable(Normalize(before.min(), before.max()), land)
    largest = np.percentile(abs(change), 99)
    changes = ScalarMappable(Normalize(-largest, largest), "RdBu")
    maps = (
        ("Before", heights, before, before),
        (f"After {steps * dt / 1e6:.1f} million years", heights, after, after),
        ("Difference", changes, change, after),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 5.7), sharey=True, layout="constrained")
    extent = (0, before.shape[1] * dx / 1000, 0, before.shape[0] * dy / 1000)
    for ax, (title, colours, values, relief) in zip(axes, maps, strict=True):
        shade = LightSource(azdeg=315, altdeg=45).hillshade(relief, vert_exag=3, dx=dx, dy=dy)
        rgb = colours.to_rgba(values)[..., :3] * (0.45 + 0.55 * shade[..., np.newaxis])
        ax.imshow(rgb, extent=extent)
        ax.set(title=title, xlabel="East (km)")
    axes[0].set_ylabel("North (km)")
    below = {"location": "bottom", "aspect": 30}
    figure.colorbar(heights, ax=axes[:2], label="Elevation (m)", shrink=0.45, **below)
    label = "Change (m): red worn off, blue filled in"
    figure.colorbar(changes, ax=axes[2], label=label, shrink=0.9, extend="both", **below)
    figure.suptitle("Hillslope diffusion at the Jacksboro fault, Tennessee", fontsize="x-large")
    figure.get_layout_engine().set(h_pad=0.12)

    picture = Path(path) / "plots" / "hillslope.png"
    picture.parent.mkdir(exist_ok=True)
    figure.savefig(picture, dpi=120)
    print(f"Picture: {picture}")


def main():
    parser = argparse.ArgumentParser(description="Hillslope diffusion of real terrain.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--steps", type=int, default=200, help="time steps (default: 200)")
    parser.add_argument("--every", type=int, default=50, help="steps from snapshot to snapshot")
    parser.add_argument("--overwrite", action="store_true", help="replace the run if it exists")
    parser.add_argument("--draw", action="store_true", help="draw the run that is there")
    options = parser.parse_args()
    if options.draw:
        draw(Path(options.out) / f"log_{RUN_ID}")
    else:
        simulate(options.out, options.steps, options.every, options.overwrite)


if __name__ == "__main__":
    main()
