# Made from `chinwag --help` by tests/man.rs, which checks it.
function __chinwag_command
    set -l command chinwag
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        switch "$command $word"
            case 'chinwag backup' \
                'chinwag bot' \
                'chinwag bot add' \
                'chinwag bot rotate' \
                'chinwag check' \
                'chinwag export' \
                'chinwag health' \
                'chinwag import' \
                'chinwag invite' \
                'chinwag prune' \
                'chinwag restore' \
                'chinwag session' \
                'chinwag session list' \
                'chinwag session revoke' \
                'chinwag user' \
                'chinwag user add' \
                'chinwag user delete' \
                'chinwag user disable' \
                'chinwag user enable' \
                'chinwag user list' \
                'chinwag user passwd' \
                'chinwag user role'
                set command "$command $word"
        end
    end
    test "$command" = "$argv"
end
complete -c chinwag -n '__chinwag_command chinwag' -l listen -x -d 'Address and port to listen on'
complete -c chinwag -n '__chinwag_command chinwag' -l trusted-proxy -x -d 'A proxy'
complete -c chinwag -n '__chinwag_command chinwag' -l tls-cert -r -d 'The certificate chain'
complete -c chinwag -n '__chinwag_command chinwag' -l tls-key -r -d 'The private key'
complete -c chinwag -n '__chinwag_command chinwag' -l push-contact -x -d 'How push services can reach you'
complete -c chinwag -n '__chinwag_command chinwag' -l push-host -x -d 'A push service besides the browsers\' own'
complete -c chinwag -n '__chinwag_command chinwag' -l metrics-listen -x -d 'Address and port to serve Prometheus metrics on'
complete -c chinwag -n '__chinwag_command chinwag' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag' -l registration -x -a 'open invite closed' -d 'Who may create an account'
complete -c chinwag -n '__chinwag_command chinwag' -l name -x -d 'The server\'s name for people'
complete -c chinwag -n '__chinwag_command chinwag' -l public-url -x -d 'The address that people use'
complete -c chinwag -n '__chinwag_command chinwag' -l host -x -d 'Another host name of this server'
complete -c chinwag -n '__chinwag_command chinwag' -l rooms -x -a 'everyone moderators' -d 'Who may create open rooms'
complete -c chinwag -n '__chinwag_command chinwag' -l invites -x -a 'everyone moderators' -d 'Who may invite'
complete -c chinwag -n '__chinwag_command chinwag' -l images -x -a 'on off' -d 'Whether people may send pictures'
complete -c chinwag -n '__chinwag_command chinwag' -l images-keep-days -x -d 'Keep pictures for N days'
complete -c chinwag -n '__chinwag_command chinwag' -l durability -x -a 'full normal' -d 'What a power failure may lose'
complete -c chinwag -n '__chinwag_command chinwag' -l keep-messages -x -d 'Keep at most the newest N messages'
complete -c chinwag -n '__chinwag_command chinwag' -l keep-days -x -d 'Keep messages for N days'
complete -c chinwag -n '__chinwag_command chinwag' -l min-free -x -d 'Space to keep free on the disk'
complete -c chinwag -n '__chinwag_command chinwag' -l max-db-size -x -d 'Maximum size of the database'
complete -c chinwag -n '__chinwag_command chinwag' -l message-rate -x -d 'Messages per second for each user'
complete -c chinwag -n '__chinwag_command chinwag' -l auth-rate -x -d 'Registrations and logins per minute for one name from one address'
complete -c chinwag -n '__chinwag_command chinwag' -l max-connections -x -d 'Connections in total'
complete -c chinwag -n '__chinwag_command chinwag' -l user-connections -x -d 'Authenticated connections per user'
complete -c chinwag -n '__chinwag_command chinwag' -l address-connections -x -d 'Unauthenticated connections per address'
complete -c chinwag -n '__chinwag_command chinwag' -l shards -x -d 'Loops that write to sockets'
complete -c chinwag -n '__chinwag_command chinwag' -l ping-interval -x -d 'Seconds between pings'
complete -c chinwag -n '__chinwag_command chinwag' -l allow-origin -x -d 'An origin'
complete -c chinwag -n '__chinwag_command chinwag' -l log-format -x -a 'text json' -d 'How the log on standard error is written'
complete -c chinwag -n '__chinwag_command chinwag' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag' -f -a user -d 'Add'
complete -c chinwag -n '__chinwag_command chinwag' -f -a bot -d 'Add bots'
complete -c chinwag -n '__chinwag_command chinwag' -f -a session -d 'List the sessions'
complete -c chinwag -n '__chinwag_command chinwag' -f -a invite -d 'Print a link that lets somebody register'
complete -c chinwag -n '__chinwag_command chinwag' -f -a backup -d 'Copy the database to a new file'
complete -c chinwag -n '__chinwag_command chinwag' -f -a restore -d 'Replace the database by a backup'
complete -c chinwag -n '__chinwag_command chinwag' -f -a export -d 'Write the whole chat as JSON'
complete -c chinwag -n '__chinwag_command chinwag' -f -a import -d 'Fill an empty database from an export'
complete -c chinwag -n '__chinwag_command chinwag' -f -a prune -d 'Delete old messages for good'
complete -c chinwag -n '__chinwag_command chinwag' -f -a check -d 'Verify the database and say what is in it'
complete -c chinwag -n '__chinwag_command chinwag' -f -a health -d 'Ask this database\'s server whether it is well'
complete -c chinwag -n '__chinwag_command chinwag backup' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag backup' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag backup' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag bot' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag bot' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag bot' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag bot' -f -a add -d 'Create a bot and print its token'
complete -c chinwag -n '__chinwag_command chinwag bot' -f -a rotate -d 'Give a bot a new token and print it'
complete -c chinwag -n '__chinwag_command chinwag bot add' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag bot add' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag bot add' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag bot rotate' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag bot rotate' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag bot rotate' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag check' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag check' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag check' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag export' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag export' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag export' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag health' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag health' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag health' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag import' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag import' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag import' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag invite' -l uses -x -d 'How many people may register with it'
complete -c chinwag -n '__chinwag_command chinwag invite' -l expires -x -d 'How long it works'
complete -c chinwag -n '__chinwag_command chinwag invite' -l url -x -d 'The address that people use'
complete -c chinwag -n '__chinwag_command chinwag invite' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag invite' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag invite' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag prune' -l older-than -x -d 'How old'
complete -c chinwag -n '__chinwag_command chinwag prune' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag prune' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag prune' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag restore' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag restore' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag restore' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag session' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag session' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag session' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag session' -f -a list -d 'List the sessions'
complete -c chinwag -n '__chinwag_command chinwag session' -f -a revoke -d 'End a session'
complete -c chinwag -n '__chinwag_command chinwag session list' -l user -x -d 'Of this user only'
complete -c chinwag -n '__chinwag_command chinwag session list' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag session list' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag session list' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag session revoke' -l user -x -d 'All sessions of this user'
complete -c chinwag -n '__chinwag_command chinwag session revoke' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag session revoke' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag session revoke' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a add -d 'Create a user'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a list -d 'List all users'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a passwd -d 'Set a user\'s password'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a disable -d 'Lock a user out'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a enable -d 'Let a disabled user in again'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a role -d 'Make a user a moderator'
complete -c chinwag -n '__chinwag_command chinwag user' -f -a delete -d 'Delete a user'
complete -c chinwag -n '__chinwag_command chinwag user add' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user add' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user add' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user delete' -l messages -d 'Delete their messages too'
complete -c chinwag -n '__chinwag_command chinwag user delete' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user delete' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user delete' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user disable' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user disable' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user disable' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user enable' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user enable' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user enable' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user list' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user list' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user list' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user passwd' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user passwd' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user passwd' -l version -d 'Print version'
complete -c chinwag -n '__chinwag_command chinwag user role' -l db -r -d 'The database file'
complete -c chinwag -n '__chinwag_command chinwag user role' -l help -d 'Print help'
complete -c chinwag -n '__chinwag_command chinwag user role' -l version -d 'Print version'
