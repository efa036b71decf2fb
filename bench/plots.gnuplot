# The plots of bench/run, which has written their data: cd bench; gnuplot
# -e 'data="DIRECTORY"' plots.gnuplot

set terminal svg size 760,380 font "sans-serif,13" background "white"
set style line 1 lc rgb "#b8b8b8"
set style line 2 lc rgb "#787878"
set style line 3 lc rgb "#8fbce6"
set style line 4 lc rgb "#1f66b0"
set border 3 lc rgb "#606060"
set tics nomirror
set grid ytics lc rgb "#e0e0e0" lt 1
set key outside top center horizontal

set output "conversions.svg"
set title "Conversions a second, as a part of the floor's"
set style data histograms
set style histogram clustered gap 1
set style fill solid border lc rgb "white"
set yrange [0:*]
set format y "%g %%"
set arrow from graph 0, first 100 to graph 1, first 100 nohead lc rgb "#c03030" dt 2 front
plot data."/conversions.dat" using 2:xtic(1) ls 1 title "stock, no listener", \
     "" using 3 ls 3 title "ours, no listener", \
     "" using 4 ls 2 title "stock, 8 listeners", \
     "" using 5 ls 4 title "ours, 8 listeners"
unset arrow
unset format

set output "tracking.svg"
set title "Tracking of one page's conversion, over the size of the VM"
set logscale x 2
set logscale y
set xrange [3:5500]
set yrange [10:*]
set xtics ("4 GiB" 4, "16 GiB" 16, "64 GiB" 64, "256 GiB" 256, "1 TiB" 1024, "4 TiB" 4096)
set ytics ("10 ns" 10, "100 ns" 100, "1 us" 1e3, "10 us" 1e4, "100 us" 1e5, "1 ms" 1e6, "10 ms" 1e7)
plot data."/tracking.dat" using 1:2 with linespoints ls 2 lw 2 pt 7 ps 0.6 title "stock", \
     "" using 1:3 with linespoints ls 4 lw 2 pt 7 ps 0.6 title "ours"
unset logscale
set autoscale x
set xtics autofreq
set ytics autofreq

set terminal svg size 760,220 font "sans-serif,13" background "white"
set output "backend.svg"
set title "memory-backend-guest-memfd, as a part of memory-backend-memfd's"
set format y "%g %%"
set yrange [0:*]
set boxwidth 0.3
unset key
set arrow from graph 0, first 100 to graph 1, first 100 nohead lc rgb "#c03030" dt 2 front
plot data."/backend.dat" using 2:xtic(1) with boxes ls 4 fill solid
